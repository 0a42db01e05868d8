"""The commands about teachers and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from tutelage_client.cli import show
from tutelage_client.cli.connect import PATIENT, coordinator
from tutelage_client.errors import InvalidInput
from tutelage_client.uploading import Progress
from tutelage_client.wire import FileView, TeacherView


async def teachers_ls(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        teachers = await client.teachers.all()
    if args.json:
        show.document({"data": teachers, "next": None})
    elif not teachers:
        show.say("no teachers yet; start one: tutelage up --teacher NAME=DIR")
    else:
        show.table(
            {"NAME": "left", "AVAILABLE": "left", "SEEN": "right", "ENGINE": "left", "URL": "left", "SIGNALS": "wrap"},
            map(_teacher_row, teachers),
        )
    return 0


async def teachers_rm(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        await client.teachers.remove(args.name)
    if args.json:
        show.document({"removed": args.name})
    else:
        show.say(f"{args.name} is off the list; one that still runs is back within seconds")
    return 0


def _teacher_row(teacher: TeacherView) -> list[show.Cell]:
    signals = " ".join(sorted(teacher.info.capabilities.signals))
    available = show.styled("yes" if teacher.available else "no")
    return [teacher.name, available, show.ago(teacher.seen_at), teacher.info.provenance.engine, teacher.url, signals]


async def files_put(args: argparse.Namespace) -> int:
    if not args.path.is_file():
        raise InvalidInput(f"{args.path} is not a file that can be read; give the path of one", "path")
    async with coordinator(args) as client:
        with bar(shown=not args.json and show.can_move()) as progress:
            file = await client.files.upload(args.path, progress=progress, patience=PATIENT)
    if args.json:
        show.document(file)
    else:
        show.say(f"{file.id}  {show.clean(file.filename)}  {show.count(file.bytes)}B; a spec names it file:{file.id}")
    return 0


@contextmanager
def bar(*, shown: bool) -> Iterator[Progress]:
    """A line that moves while a file is read and sent, and is gone once that has ended."""
    what = TextColumn("{task.description}")
    how_far = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(what, *how_far, console=show.console(), transient=True, disable=not shown) as moving:
        task = moving.add_task("reading", total=None)
        yield lambda sent, size: moving.update(task, description="sending", completed=sent, total=size)


async def files_ls(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        files = await client.files.all()
    if args.json:
        show.document({"data": files, "next": None})
    elif not files:
        show.say("no files yet; `tutelage files put PATH` uploads one")
    else:
        columns: dict[str, show.Column] = {"ID": "left", "NAME": "wrap", "SIZE": "right", "UPLOADED": "right"}
        show.table(columns, map(_file_row, files))
    return 0


async def files_rm(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        await client.files.delete(args.id)
    if args.json:
        show.document({"removed": args.id})
    else:
        show.say(f"{args.id} is deleted")
    return 0


def _file_row(file: FileView) -> list[show.Cell]:
    return [file.id, file.filename, f"{show.count(file.bytes)}B", show.ago(file.created_at)]
