"""The commands about runs, except the one that follows them."""

from __future__ import annotations

import argparse
import difflib

from tutelage_client.cli import show as look
from tutelage_client.cli.connect import coordinator, coordinator_url
from tutelage_client.cli.details import describe
from tutelage_client.cli.watch import follow
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import load_spec
from tutelage_client.wire import EventView, RunStatus, RunView

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
    spec = load_spec(args.spec)
    async with coordinator(args) as client:
        run = await client.submit(spec)
    if args.json and not args.watch:
        look.document(run)
    elif not args.json:
        look.say(f"{run.id}  {coordinator_url(args)}/v1/runs/{run.id}")
    return await follow(args, run) if args.watch else 0


async def ls(args: argparse.Namespace) -> int:
    status = None if args.status is None else _status(args.status)
    async with coordinator(args) as client:
        page = await client.runs(limit=args.limit, status=status)
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
    async with coordinator(args) as client:
        run = await client.run(args.run_id)
        checkpoints = [] if args.json else await client.checkpoints(args.run_id)
    if args.json:
        look.document(run)
    else:
        describe(run, checkpoints)
    return 0


async def steer(args: argparse.Namespace) -> int:
    """Cancel, pause or resume."""
    async with coordinator(args) as client:
        asks = {"runs cancel": client.cancel, "runs pause": client.pause, "runs resume": client.resume}
        run = await asks[args.command](args.run_id)
    if args.json:
        look.document(run)
    else:
        look.say(f"{run.id} is", look.styled(run.status))
    return 0


async def metrics(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        rows = await client.metrics(args.run_id)
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
    found: list[EventView] = []
    async with coordinator(args) as client:
        after: int | None = 0
        while after is not None:
            page = await client.event_page(args.run_id, after=after, limit=1000)
            found += page.data
            after = found[-1].id if page.next else None
    if args.json:
        look.document({"data": found, "next": None})
    else:
        look.table(HISTORY, map(_event_row, found))
    return 0


def _event_row(event: EventView) -> list[look.Cell]:
    return [str(event.id), look.moment(event.created_at), event.type, look.styled(event.level), event.message]


async def logs(args: argparse.Namespace) -> int:
    async with coordinator(args) as client:
        text = await client.logs(args.run_id, epoch=args.epoch, lines=args.lines)
    if args.json:
        look.document({"run_id": args.run_id, "log": text})
    else:
        for line in text.splitlines():
            look.say(look.clean(line))
    return 0


async def model(args: argparse.Namespace) -> int:
    """Download the final model into a new directory."""
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        raise InvalidInput(f"--out: {args.out} is there already and not an empty directory; give another one", "out")
    async with coordinator(args) as client:
        folder = await client.download_model(args.run_id, args.out)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if args.json:
        look.document({"run_id": args.run_id, "path": str(folder), "bytes": size})
    else:
        look.say(f"The model of {args.run_id} is in {folder} ({look.count(size)}B)")
    return 0
