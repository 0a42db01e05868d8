"""The commands about named methods. They ask no service."""

from __future__ import annotations

import argparse

from tutelage_client.cli import show
from tutelage_client.methods import METHODS, Method, as_toml, method


async def ls(args: argparse.Namespace) -> int:
    if args.json:
        show.document({"data": METHODS, "next": None})
        return 0
    columns: dict[str, show.Column] = {
        "NAME": "left",
        "STATUS": "left",
        "ON-POLICY": "left",
        "NEEDS": "wrap",
        "TITLE": "wrap",
    }
    show.table(columns, map(_row, METHODS))
    return 0


def _row(each: Method) -> list[show.Cell]:
    return [each.name, show.styled(each.status), each.on_policy, " ".join(each.needs), each.title]


async def show_one(args: argparse.Namespace) -> int:
    found = method(args.name)
    if args.json:
        show.document(found)
        return 0
    show.facts(
        [
            ("name", found.name),
            ("title", found.title),
            ("status", show.styled(found.status)),
            ("missing", found.missing),
            ("why not", found.out_of_scope),
            ("formula", found.formula),
            ("needs", ", ".join(found.needs)),
            ("on-policy", found.on_policy),
            ("place", found.section),
            ("place in v1", f"{found.feedback}, {found.access}, {found.granularity}"),
            ("defaults", found.defaults),
            ("failures", found.failures),
            ("differs", found.differs),
            ("paper", found.paper),
            ("year", str(found.year) if found.year else None),
            ("evidence", found.evidence),
        ]
    )
    if found.composition is not None:
        show.say("\n" + as_toml(found.composition).rstrip())
    return 0
