"""`tutelage doctor`: one line a check, each warning and each failure with its remedy."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Literal

from pydantic import BaseModel

from tutelage_client.cli import show
from tutelage_client.cli.connect import BRIEF, coordinator, coordinator_url
from tutelage_client.cli.extras import EXTRAS, missing
from tutelage_client.cli.remedies import explained
from tutelage_client.connection import bearer_key
from tutelage_client.errors import ProblemResponse, ServiceUnreachable
from tutelage_client.http import Http
from tutelage_client.wire import TeacherView

OLDEST_PYTHON = (3, 11)
STYLES = {"ok": "green", "absent": "dim", "warning": "yellow", "failed": "red"}


class Check(BaseModel):
    """`absent` is something that this machine may do without; a `warning` is something that a run will want."""

    name: str
    result: Literal["ok", "absent", "warning", "failed"]
    detail: str
    remedy: str | None = None


async def doctor(args: argparse.Namespace) -> int:
    """Look at everything; 1 if anything that is needed fails."""
    checks = [_python(), *_extras(), await _ready(args)]
    if checks[-1].result == "ok":
        checks += await _teachers(args)
    if args.json:
        show.document({"checks": checks})
    else:
        _print(checks)
    return 1 if any(check.result == "failed" for check in checks) else 0


def _print(checks: list[Check]) -> None:
    grid = [[show.Text(check.result, style=STYLES[check.result]), check.name, _said(check)] for check in checks]
    show.table({"RESULT": "left", "CHECK": "left", "FOUND": "wrap"}, grid)


def _said(check: Check) -> str:
    return f"{check.detail}; {check.remedy}" if check.remedy else check.detail


def _python() -> Check:
    is_new = sys.version_info >= OLDEST_PYTHON
    return Check(
        name="python",
        result="ok" if is_new else "failed",
        detail=f"{platform.python_version()} at {sys.executable}",
        remedy=None if is_new else "Tutelage needs Python 3.11 or newer",
    )


def _extras() -> list[Check]:
    """Those that are here as one check, then one for each that is not."""
    lacking = {extra: missing(extra) for extra in EXTRAS}
    here = [extra for extra, modules in lacking.items() if not modules]
    found = [Check(name="extras", result="ok", detail=f"{', '.join(here)} are installed")] if here else []
    return found + [_lacking(extra, modules) for extra, modules in lacking.items() if modules]


def _lacking(extra: str, modules: list[str]) -> Check:
    remedy = f"if wanted: pip install 'tutelage[{extra}]'"
    return Check(name=f"extra {extra}", result="absent", detail=f"lacks {', '.join(modules)}", remedy=remedy)


async def _ready(args: argparse.Namespace) -> Check:
    url = coordinator_url(args)
    try:
        async with Http(url, key=bearer_key(args.key_file), retry=BRIEF) as http:
            await http.send("GET", "/readyz")
    except (ServiceUnreachable, ProblemResponse) as error:
        detail, remedy = explained(error, args)
        return Check(name="coordinator", result="failed", detail=detail, remedy=remedy or "see its log")
    return Check(name="coordinator", result="ok", detail=f"ready at {url}")


async def _teachers(args: argparse.Namespace) -> list[Check]:
    try:
        async with coordinator(args) as client:
            teachers = await client.teachers.all()
    except (ServiceUnreachable, ProblemResponse) as error:
        detail, remedy = explained(error, args)
        remedy = remedy or "is this a coordinator's address?"
        return [Check(name="teachers", result="failed", detail=detail, remedy=remedy)]
    remedy = "start one: tutelage up --teacher NAME=DIR, or python -m tutelage.teacher --coordinator URL"
    nobody = Check(name="teachers", result="warning", detail="none is registered", remedy=remedy)
    return [_teacher(teacher) for teacher in teachers] or [nobody]


def _teacher(teacher: TeacherView) -> Check:
    return Check(
        name=f"teacher {teacher.name}",
        result="ok" if teacher.available else "failed",
        detail=f"{'' if teacher.available else 'silent, was '}at {teacher.url}, seen {show.ago(teacher.seen_at)}",
        remedy=None if teacher.available else f"start it again, see its log, or: tutelage teachers rm {teacher.name}",
    )
