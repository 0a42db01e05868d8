"""`tutelage runs fork`: a new run from a checkpoint of another one, with settings changed on the command line."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from typing import Any

from tutelage_client.cli.connect import the_run
from tutelage_client.cli.watch import queued
from tutelage_client.errors import InvalidInput


async def fork(args: argparse.Namespace) -> int:
    changes = settings(args.set)
    async with the_run(args) as run:
        forked = await run.fork(step=args.step, spec=changes)
        return await queued(args, await forked.view())


def settings(given: Sequence[str]) -> dict[str, Any]:
    """Each KEY=VALUE at its dotted path. A value is TOML's, text that is no TOML is itself, an empty one is None.

    Raises:
        InvalidInput: no path, or one that goes through another one's value.
    """
    found: dict[str, Any] = {}
    for each in given:
        key, equals, text = each.partition("=")
        *tables, last = key.split(".")
        if not equals or not all([*tables, last]):
            raise InvalidInput(f"--set: {each!r} is not KEY=VALUE, such as optim.lr=1e-5", "set")
        node = found
        for table in tables:
            node = node.setdefault(table, {})
            if not isinstance(node, dict):
                raise InvalidInput(f"--set: {key} is inside of {table}, which has a value of its own", "set")
        if last in node:
            raise InvalidInput(f"--set: {key} is there more than once; give it once", "set")
        node[last] = _value(text)
    return found


def _value(text: str) -> Any:
    if not text:
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
