"""`tutelage doctor`: one line a check, each failure with its remedy."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Literal

from pydantic import BaseModel

from tutelage_client.cli import show
from tutelage_client.cli.connect import BRIEF, coordinator, coordinator_url
from tutelage_client.cli.extras import EXTRAS, missing
from tutelage_client.errors import TutelageError
from tutelage_client.http import Http

OLDEST_PYTHON = (3, 11)
MARKS = {"ok": ("ok", "green"), "absent": ("--", "dim"), "failed": ("no", "red")}


class Check(BaseModel):
    """`absent` is something that this machine may do without."""

    name: str
    result: Literal["ok", "absent", "failed"]
    detail: str
    remedy: str | None = None


async def doctor(args: argparse.Namespace) -> int:
    """Look at everything; 1 if anything that is needed fails."""
    checks = [_python(), *map(_extra, EXTRAS), await _ready(coordinator_url(args))]
    if checks[-1].result == "ok":
        checks += await _teachers(args)
    if args.json:
        show.document({"checks": checks})
    else:
        _print(checks)
    return 1 if any(check.result == "failed" for check in checks) else 0


def _print(checks: list[Check]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        word, style = MARKS[check.result]
        remedy = f"; {check.remedy}" if check.remedy else ""
        show.say(show.Text(word, style=style), f"{check.name:<{width}}  {show.clean(check.detail)}{remedy}")


def _python() -> Check:
    is_new = sys.version_info >= OLDEST_PYTHON
    return Check(
        name="python",
        result="ok" if is_new else "failed",
        detail=f"{platform.python_version()} at {sys.executable}",
        remedy=None if is_new else "Tutelage needs Python 3.11 or newer",
    )


def _extra(extra: str) -> Check:
    lacking = missing(extra)
    if not lacking:
        return Check(name=f"extra {extra}", result="ok", detail="can be imported")
    return Check(
        name=f"extra {extra}",
        result="absent",
        detail=f"without {', '.join(lacking)}",
        remedy=f"if wanted: pip install 'tutelage[{extra}]'",
    )


async def _ready(url: str) -> Check:
    try:
        async with Http(url, retry=BRIEF) as http:
            await http.send("GET", "/readyz")
    except TutelageError as error:
        remedy = "start one with `tutelage up`, or give --coordinator"
        return Check(name="coordinator", result="failed", detail=str(error), remedy=remedy)
    return Check(name="coordinator", result="ok", detail=f"ready at {url}")


async def _teachers(args: argparse.Namespace) -> list[Check]:
    try:
        async with coordinator(args) as client:
            teachers = await client.teachers()
    except TutelageError as error:
        return [Check(name="teachers", result="failed", detail=str(error), remedy="is this a coordinator's address?")]
    if not teachers:
        remedy = "start one with `python -m tutelage.teacher --coordinator URL` or `tutelage up --teacher NAME=DIR`"
        return [Check(name="teachers", result="failed", detail="none is registered", remedy=remedy)]
    return [
        Check(
            name=f"teacher {teacher.name}",
            result="ok" if teacher.available else "failed",
            detail=f"{teacher.url}, seen {show.ago(teacher.seen_at)}",
            remedy=None if teacher.available else "it is silent: start it again, or see its log",
        )
        for teacher in teachers
    ]
