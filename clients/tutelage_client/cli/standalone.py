"""`tutelage up` and `tutelage demo`: handed over to the services as they are, this process becomes theirs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import NoReturn

from tutelage_client.cli.extras import missing
from tutelage_client.errors import InvalidInput, TutelageError


def execute(argv: Sequence[str]) -> NoReturn:
    """Become `python -m tutelage.standalone ARGV...`.

    Raises:
        TutelageError: the services or something that they need are not installed.
    """
    lacking = missing("embedded") + ([] if find_spec("tutelage") else ["tutelage"])
    if lacking:
        raise TutelageError(
            f"`tutelage {argv[0]}` needs the services, of which {', '.join(lacking)} cannot be found here; "
            "install them with: pip install 'tutelage[embedded]'"
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "tutelage.standalone", *argv])  # noqa: S606 - no shell is meant


async def misplaced(args: argparse.Namespace) -> int:
    """`tutelage --json up`: refused, as the services do not know the flag."""
    raise InvalidInput(f"`tutelage {args.command}` takes its flags after it; see `tutelage {args.command} --help`")
