"""The commands about dead letters: questions of a run that a teacher gave up."""

from __future__ import annotations

import argparse

from tutelage_client.cli import show
from tutelage_client.cli.connect import the_run
from tutelage_client.wire import DeadLetterView

COLUMNS: dict[str, show.Column] = {
    "JOB": "left",
    "TEACHER": "left",
    "WORKER": "left",
    "WHEN": "left",
    "REASON": "wrap",
}


async def dead(args: argparse.Namespace) -> int:
    """One row a delivery; a letter's name stands on its first."""
    async with the_run(args) as run:
        letters = await run.dead_letters()
    if args.json:
        show.document({"data": letters, "next": None})
    elif not letters:
        show.say(f"{args.run_id} has no dead letters")
    else:
        show.table(COLUMNS, [row for letter in letters for row in _rows(letter)])
    return 0


def _rows(letter: DeadLetterView) -> list[list[show.Cell]]:
    names = [(letter.job_id, letter.teacher), *[("", "")] * len(letter.history)]
    told = [[each.worker, show.moment(each.at), each.reason] for each in letter.history]
    told = told or [[show.NOTHING, show.NOTHING, letter.reason]]
    return [[*name, *row] for name, row in zip(names, told, strict=False)]


async def settle(args: argparse.Namespace) -> int:
    """Replay or discard each of the letters; the first that is not there ends it."""
    settled: list[DeadLetterView] = []
    async with the_run(args) as run:
        settle_one = {"queue replay": run.replay, "queue discard": run.discard}[args.command]
        for job_id in args.job_ids:
            settled.append(await settle_one(job_id))
            if not args.json:
                show.say(f"{job_id} is", "back at work" if args.command == "queue replay" else "forgotten")
    if args.json:
        show.document({"data": settled, "next": None})
    return 0
