"""The command that deletes what a project no longer keeps."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from tutelage_client.cli import show
from tutelage_client.cli.connect import coordinator
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Forgotten
from tutelage_client.wire.refusal import explain


async def gc(args: argparse.Namespace) -> int:
    """A part at a time, so that nobody else waits for long."""
    shown = pushed = entries = 0
    async with coordinator(args) as client:
        try:
            while (gone := await client.forget_rollouts(args.days, args.audit_days)).any:
                shown, pushed, entries = shown + gone.shown, pushed + gone.pushed, entries + gone.entries
        except ValidationError as error:
            raise InvalidInput(*explain(error)) from error
    if args.json:
        show.document(Forgotten(shown=shown, pushed=pushed, entries=entries))
    else:
        older = f"of runs that ended more than {args.days} {'day' if args.days == 1 else 'days'} ago"
        show.say(f"deleted {shown} shown and {pushed} pushed rollouts {older}")
        if args.audit_days is not None:
            show.say(f"deleted {entries} entries of the audit, older than {args.audit_days} days")
    return 0
