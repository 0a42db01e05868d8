"""The command that shows who did what at the coordinator."""

from __future__ import annotations

import argparse

from tutelage_client.cli import show
from tutelage_client.cli.connect import coordinator
from tutelage_client.wire import AuditEntry

COLUMNS: dict[str, show.Column] = {
    "WHEN": "left",
    "WHO": "wrap",
    "WHAT": "left",
    "TO": "wrap",
    "PROJECT": "left",
    "ANSWER": "right",
    "ROUTE": "wrap",
}


async def audit(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        page = await client.audit(limit=args.limit, actor=args.actor, action=args.action, target=args.target)
    if args.json:
        show.document(page)
    elif not page.data:
        show.say("nobody has done anything of this kind")
    else:
        show.table(COLUMNS, map(_row, page.data))
    return 0


def _row(entry: AuditEntry) -> list[show.Cell]:
    who = entry.actor if entry.owner is None else f"{entry.owner} ({entry.actor})"
    seen = [entry.action, entry.target or show.NOTHING, entry.project or show.NOTHING, str(entry.status), entry.route]
    return [show.moment(entry.created_at), who, *seen]
