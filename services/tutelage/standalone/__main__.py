"""`python -m tutelage.standalone up|demo`, which is what `tutelage up` and `tutelage demo` execute."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from tutelage.standalone.children import ChildFailed
from tutelage.standalone.stack import StackOptions, running
from tutelage.standalone.stages import DEFAULT, STAGES
from tutelage_client.errors import TutelageError


def parser() -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser(prog="tutelage", description="The whole stack on this machine.")
    verbs = commands.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start coordinator, queue, teachers and a trainer; Ctrl-C stops them")
    up.add_argument("--data-dir", type=Path, default=Path("tutelage-data"), metavar="DIR", help="where all state lives")
    up.add_argument("--port", type=int, default=8400, help="the coordinator's port on loopback, 0 for a free one")
    model = "a teacher to start and the name that runs use, may be repeated"
    up.add_argument("--teacher", action="append", default=[], metavar="NAME=MODEL_DIR", type=_teacher, help=model)
    up.add_argument("--trainers", type=int, default=1, metavar="N", help="how many runs are executed at once")
    up.add_argument("--redis-url", metavar="URL", help="use this queue instead of an embedded one")
    up.add_argument("--database-url", metavar="URL", help="use this database instead of SQLite in the data directory")
    demo = verbs.add_parser("demo", help="distil a small student and show what came of it")
    demo.add_argument("--out", type=Path, default=Path("build/demo"), help="where report and results go")
    demo.add_argument("--assets", type=Path, default=Path("examples"), help="the checkout's examples folder")
    demo.add_argument(
        "--stage",
        action="append",
        choices=STAGES,
        help=f"a stage to run, may be repeated (default: {', '.join(DEFAULT)})",
    )
    demo.add_argument("--short", action="store_true", help="a tenth of the steps: it runs, it hardly learns")
    return commands


def _teacher(value: str) -> tuple[str, Path]:
    name, _, model = value.partition("=")
    if not name or not model:
        raise argparse.ArgumentTypeError(f"{value!r} is not NAME=MODEL_DIR")
    return name, Path(model)


async def up(options: StackOptions) -> None:
    """Run until SIGINT or SIGTERM."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with running(options) as stack:
        print(f"Tutelage is up at {stack.url} (data in {options.data_dir}); Ctrl-C stops it.", flush=True)
        for teacher in stack.teachers:
            print(f"  teacher {teacher.name} at {teacher.url}", flush=True)
        await stopping.wait()
        print("Stopping: trainers save their work first.", flush=True)


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do the work; SIGINT or SIGTERM cancels it, which stops the stack in order."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        raise TutelageError("stopped before the end") from None


def main() -> int:
    args = parser().parse_args()
    try:
        if args.verb == "up":
            asyncio.run(
                up(
                    StackOptions(
                        data_dir=args.data_dir,
                        port=args.port,
                        teachers=dict(args.teacher),
                        trainers=args.trainers,
                        redis_url=args.redis_url,
                        database_url=args.database_url,
                    )
                )
            )
        else:
            from tutelage.standalone.demo import demo

            chosen = [STAGES[name] for name in args.stage or DEFAULT]
            asyncio.run(until_stopped(demo(args.out, args.assets, chosen, short=args.short)))
    except ChildFailed as error:
        print(f"tutelage: {error}", file=sys.stderr)
        return 1
    except TutelageError as error:
        print(f"tutelage: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
