"""The command that deletes what a project no longer keeps."""

from __future__ import annotations

import argparse
from collections import Counter

from pydantic import ValidationError

from tutelage_client.cli import show
from tutelage_client.cli.connect import coordinator
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Forgotten
from tutelage_client.wire.refusal import explain


async def gc(args: argparse.Namespace) -> int:
    """A part at a time, so that nobody else waits for long."""
    total: Counter[str] = Counter()
    async with coordinator(args) as client:
        try:
            while (gone := await client.forget_rollouts(args.days, args.audit_days, files=args.files)).any:
                total.update(gone.model_dump())
        except ValidationError as error:
            raise InvalidInput(*explain(error)) from error
    if args.json:
        show.document(Forgotten.model_validate({"shown": 0, "pushed": 0} | total))
    else:
        older = f"of runs that ended more than {args.days} {'day' if args.days == 1 else 'days'} ago"
        show.say(f"deleted {total['shown']} shown and {total['pushed']} pushed rollouts {older}")
        if args.files:
            show.say(f"deleted checkpoints and inputs of {total['runs']} of them; their models stay")
        if args.audit_days is not None:
            show.say(f"deleted {total['entries']} entries of the audit, older than {args.audit_days} days")
    return 0
