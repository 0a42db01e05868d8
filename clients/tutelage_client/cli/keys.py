"""The commands about keys of the coordinator."""

from __future__ import annotations

import argparse
import sys

from pydantic import ValidationError

from tutelage_client.cli import show
from tutelage_client.cli.connect import coordinator
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import KeyRequest, KeyView
from tutelage_client.wire.refusal import explain

DAY_S = 86_400
COLUMNS: dict[str, show.Column] = {
    "ID": "left",
    "NAME": "wrap",
    "PROJECT": "left",
    "MADE": "right",
    "STATE": "left",
    "SPENT": "left",
    "SCOPES": "wrap",
}


async def create(args: argparse.Namespace) -> int:
    """The secret alone goes to standard output, so that it can go into a file unseen."""
    request = _wanted(args)
    async with coordinator(args) as client:
        made = await client.keys.create(request)
    if args.json:
        show.document(made)
    else:
        print(f"{made.key.id} of the project {made.key.project}; its secret is shown this once", file=sys.stderr)
        show.say(made.secret)
    return 0


def _wanted(args: argparse.Namespace) -> KeyRequest:
    expires_in_s = None if args.days is None else args.days * DAY_S
    wanted = {"name": args.name, "scopes": args.scope, "project": args.project, "expires_in_s": expires_in_s}
    wanted |= {name: getattr(args, name) for name in ("requests_per_s", "budget_tokens", "budget_usd")}
    try:
        return KeyRequest.model_validate(wanted)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


async def ls(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        keys = await client.keys.all()
    if args.json:
        show.document({"data": keys, "next": None})
    elif not keys:
        show.say("no keys yet; `tutelage keys create NAME --scope runs:read` makes one")
    else:
        show.table(COLUMNS, map(_row, keys))
    return 0


async def revoke(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        key = await client.keys.revoke(args.key_id)
    if args.json:
        show.document(key)
    else:
        show.say(f"{key.id} ({show.clean(key.name)}) is refused from now on")
    return 0


def _row(key: KeyView) -> list[show.Cell]:
    until = "never expires" if key.expires_at is None else f"until {show.moment(key.expires_at)}"
    state = until if key.revoked_at is None else "revoked"
    return [key.id, key.name, key.project, show.ago(key.created_at), state, _spent(key), " ".join(key.scopes)]


def _spent(key: KeyView) -> str:
    """By runs that have ended, and reserved for those that go on, of what they may."""
    tokens, usd = key.spent_tokens + key.reserved_tokens, key.spent_usd + key.reserved_usd
    of_tokens = "" if key.budget_tokens is None else f" of {show.count(key.budget_tokens)}"
    of_usd = "" if key.budget_usd is None else f" of {key.budget_usd:g}"
    dollars = f", {usd:.4g}{of_usd} USD" if usd or of_usd else ""
    return f"{show.count(tokens)}{of_tokens} tokens{dollars}"
