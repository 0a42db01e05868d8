"""The commands about runs, except the one that follows them."""

from __future__ import annotations

import argparse
import difflib
from pathlib import Path

from pydantic import ValidationError

from tutelage_client.cli import show as look
from tutelage_client.cli.connect import coordinator, the_run
from tutelage_client.cli.details import describe
from tutelage_client.cli.watch import queued
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import EventView, RunChanges, RunStatus, RunView
from tutelage_client.wire.refusal import explain

# The columns of `runs metrics`, where the run has them: what fits on 80 columns. --json has everything.
SHOWN = {
    "step": "STEP",
    "loss": "LOSS",
    "reverse_kl": "KL",
    "accuracy": "ACCURACY",
    "student_entropy": "ENTROPY",
    "length": "LENGTH",
    "student_tokens": "STUDENT TOK",
    "teacher_tokens": "TEACHER TOK",
}
HISTORY: dict[str, look.Column] = {
    "#": "right",
    "WHEN": "left",
    "TYPE": "left",
    "LEVEL": "left",
    "MESSAGE": "wrap",
}
LISTED: dict[str, look.Column] = {
    "ID": "left",
    "NAME": "wrap",
    "STATUS": "left",
    "STEP": "right",
    "KL": "right",
    "ACCURACY": "right",
    "CREATED": "right",
}


async def submit(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        run = await client.runs.submit(args.spec)
        return await queued(args, await run.view())


async def ls(args: argparse.Namespace) -> int:
    status = None if args.status is None else _status(args.status)
    async with coordinator(args) as client:
        page = await client.runs.page(limit=args.limit, status=status)
    if args.json:
        look.document(page)
    elif not page.data:
        look.say("no runs" + (f" are {status}" if status else " yet; `tutelage runs submit SPEC.toml` queues one"))
    else:
        look.table(LISTED, map(_row, page.data))
        if page.next:
            look.say(f"and older ones; --limit {args.limit * 4} shows more")
    return 0


def _row(run: RunView) -> list[look.Cell]:
    figures = [look.number(run.metrics.get(name)) for name in ("reverse_kl", "accuracy")]
    return [run.id, run.name, look.styled(run.status), f"{run.step}/{run.steps}", *figures, look.ago(run.created_at)]


def _status(given: str) -> RunStatus:
    if given not in list(RunStatus):
        near = difflib.get_close_matches(given, list(RunStatus), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(RunStatus)}"
        raise InvalidInput(f"--status: {given!r} is no status of a run; {hint}", "status")
    return RunStatus(given)


async def show(args: argparse.Namespace) -> int:
    async with the_run(args) as run:
        view = await run.view()
        checkpoints = [] if args.json else await run.checkpoints()
    if args.json:
        look.document(view)
    else:
        describe(view, checkpoints)
    return 0


async def steer(args: argparse.Namespace) -> int:
    """Cancel, pause or resume."""
    async with the_run(args) as run:
        view = await {"runs cancel": run.cancel, "runs pause": run.pause, "runs resume": run.resume}[args.command]()
    if args.json:
        look.document(view)
    else:
        look.say(f"{view.id} is", look.styled(view.status))
    return 0


async def metrics(args: argparse.Namespace) -> int:
    async with the_run(args) as run:
        rows = await run.metrics()
    rows = rows[-args.last :] if args.last else rows
    if args.json:
        look.document({"data": rows, "next": None})
    elif not rows:
        look.say(f"{args.run_id} has reported no step yet")
    else:
        names = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
        look.table(
            {SHOWN[name]: "right" for name in names}, ([look.number(row.get(name)) for name in names] for row in rows)
        )
    return 0


async def events(args: argparse.Namespace) -> int:
    async with the_run(args) as run:
        found = await run.past_events()
    if args.json:
        look.document({"data": found, "next": None})
    else:
        look.table(HISTORY, map(_event_row, found))
    return 0


def _event_row(event: EventView) -> list[look.Cell]:
    return [str(event.id), look.moment(event.created_at), event.type, look.styled(event.level), event.message]


async def logs(args: argparse.Namespace) -> int:
    async with the_run(args) as run:
        text = await run.logs(epoch=args.epoch, lines=args.lines)
    if args.json:
        look.document({"run_id": args.run_id, "log": text})
    else:
        for line in text.splitlines():
            look.say(look.clean(line))
    return 0


async def model(args: argparse.Namespace) -> int:
    """Download the final model into a new directory."""
    _check_empty(args.out)
    async with the_run(args) as run:
        folder = await run.model(args.out)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if args.json:
        look.document({"run_id": args.run_id, "path": str(folder), "bytes": size})
    else:
        look.say(f"The model of {args.run_id} is in {folder} ({look.count(size)}B)")
    return 0


async def edit(args: argparse.Namespace) -> int:
    """Change name, labels or note."""
    changes = _changes(args)
    async with the_run(args) as run:
        view = await run.change(changes)
    if args.json:
        look.document(view)
    else:
        describe(view, [])
    return 0


def _changes(args: argparse.Namespace) -> RunChanges:
    labels: dict[str, str | None] = {}
    for given in args.label:
        key, equals, value = given.partition("=")
        if not equals:
            raise InvalidInput(f"--label: {given!r} is not KEY=VALUE, such as team=a; KEY= takes a label away", "label")
        labels[key] = value or None
    wanted = {"name": args.name, "note": args.note, "labels": labels}
    changes = {name: value for name, value in wanted.items() if value not in (None, {})}
    if not changes:
        raise InvalidInput("nothing is to be changed; give --name, --label or --note")
    try:
        return RunChanges.model_validate(changes)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


async def export(args: argparse.Namespace) -> int:
    """Write what there is of the run into a new directory."""
    _check_empty(args.out)
    async with the_run(args) as run:
        exported = await run.export(args.out)
    if args.json:
        look.document(exported)
    else:
        look.say(f"{args.run_id} is in {args.out}: {', '.join(exported.files)}")
        if exported.without:
            look.say(f"without {exported.without}")
    return 0


def _check_empty(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidInput(f"--out: {folder} is there already and not an empty directory; give another one", "out")
