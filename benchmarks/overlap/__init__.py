"""What writing, marking and learning at once brings: stages of a set time, through the real pipeline and queue.

`theirs` is the ideal, reckoned from the set times (`Stages.ideal_s`); the ratio is the efficiency. `equal` says that
every step learned from all its rollouts and that no text was older than the bound.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from benchmarks.measure import Cell, interval, load_1min
from benchmarks.overlap.stages import VOCABULARY, Silent, Stages, spec_of, wired
from benchmarks.processes import printing, python, valkey
from tutelage.queue import open_queue
from tutelage.trainer import loop
from tutelage_client.teacher import TeacherClient

EVEN = Stages(1.0, 1.0, 1.0)
PLANS: dict[str, tuple[Stages, int]] = {
    "even": (EVEN, 0),
    "even, max_lag 1": (EVEN, 1),
    "even, max_lag 2": (EVEN, 2),
    "the teacher is slow": (Stages(0.4, 1.0, 0.4), 0),
    "the teacher is slow, max_lag 1": (Stages(0.4, 1.0, 0.4), 1),
    "writing is slow, max_lag 1": (Stages(1.0, 0.4, 0.4), 1),
    "learning is slow, max_lag 1": (Stages(0.4, 0.4, 1.0), 1),
}


def overlap(*, short: bool) -> Iterator[Cell]:
    for name in ("even", "even, max_lag 1") if short else PLANS:
        yield measured(name, *PLANS[name], steps=4 if short else 14)


def measured(name: str, stages: Stages, max_lag: int, steps: int) -> Cell:
    """Milliseconds of a step once all stages are busy: the first steps fill the pipeline and the last empty it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_url = stack.enter_context(valkey(folder))
        fake = json.dumps({"vocabulary_size": VOCABULARY, "token_latency_s": stages.token_latency_s})
        argv = ("--engine", "fake", "--name", "toy", "--port", "0", "--redis-url", redis_url, "--fake-options", fake)
        argv += ("--max-batch-tokens", str(stages.piece_tokens))
        url = stack.enter_context(printing(python("tutelage.teacher", *argv), folder / "teacher.log"))
        told = asyncio.run(trained(stages, max_lag, steps, redis_url, url, folder / "run"))
    filling = 1 + max_lag
    took_ms = [1e3 * (after - before) for before, after in pairwise(told.ends_s)][filling - 1 : -max_lag or None]
    ideal_ms = 1e3 * stages.ideal_s(max_lag)
    ratios = [ideal_ms / ms for ms in took_ms]
    ages = [row["lag_max"] for row in told.rows]
    return Cell(
        cell=name,
        peer={"name": "the ideal, reckoned", "version": "", "settings": {"max_lag": max_lag, "steps": len(took_ms)}},
        ours=statistics.median(took_ms),
        theirs=ideal_ms,
        ratio=statistics.median(ratios),
        ci=interval(ratios),
        equal=all(row["learned_tokens"] == stages.tokens for row in told.rows)
        and max(map(float, filter(None, ages)), default=0) <= max_lag,
        counted={
            "write_ms": 1e3 * stages.write_s,
            "mark_ms": 1e3 * stages.mark_s,
            "learn_ms": 1e3 * stages.learn_s,
            "one_after_the_other_ms": 1e3 * (stages.write_s + stages.mark_s + stages.learn_s),
            "load_1min": load_1min(),
        },
    )


async def trained(stages: Stages, max_lag: int, steps: int, redis_url: str, url: str, folder: Path) -> Silent:
    """What a run of so many steps told."""
    told, queue = Silent(), open_queue(redis_url)
    try:
        async with TeacherClient(url) as client:
            info = await client.info()
        run = wired(stages, spec_of(stages, max_lag, steps), queue, told, url, info, folder)
        assert run.pipeline is not None
        async with run.teachers, run.pipeline, run.ahead:
            while await loop.step(run) is None:
                pass
    finally:
        await queue.close()
    return told
