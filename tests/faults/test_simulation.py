"""Hundreds of schedules hold every invariant; the same schedules find each of the bugs that are put in on purpose."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from simulation import QUEUE, Clock, Trainer, World, played, simulated_database
from sqlalchemy import select

from tutelage.coordinator.db import Database, now
from tutelage.coordinator.events import record
from tutelage.coordinator.tables import MetricRow, RunRow
from tutelage.queue import Delivery, MemoryQueue
from tutelage_client.wire import Lease, RunStatus

SCHEDULES = int(os.environ.get("TUTELAGE_TEST_SCHEDULES", "100"))
FIRST_SEED = int(os.environ.get("TUTELAGE_TEST_SEED", "0"))


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def database(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with simulated_database(tmp_path_factory.mktemp("simulated"), clock) as database:
        yield database


def test_every_schedule_of_faults_keeps_the_invariants(tmp_path: Path) -> None:
    processes = min(os.cpu_count() or 1, SCHEDULES)
    seeds = range(FIRST_SEED, FIRST_SEED + SCHEDULES)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        folders = [tmp_path / str(part) for part in range(processes)]
        for folder in folders:
            folder.mkdir()
        parts = pool.map(played, folders, [seeds[part::processes] for part in range(processes)])
        ended = [each for part in parts for each in part]
    for seed, found, _ in ended:
        assert not found, f"seed {seed} (TUTELAGE_TEST_SEED={seed} TUTELAGE_TEST_SCHEDULES=1): {found}"
    ends = Counter(status for *_, status in ended)
    if SCHEDULES > 1:
        assert ends[RunStatus.SUCCEEDED] > 0.8 * SCHEDULES, ends


class TrainsTwice(World):
    """Every announcement of an answer counts, also of a job that it does not wait for any more."""

    def _take(self, trainer: Trainer, job_id: str) -> None:
        trainer.outstanding.pop(job_id, None)
        trainer.got.append(job_id)


class AcksEarly(World):
    """A job counts as done when it is handed out: a teacher that dies before it answers takes it along."""

    class Queue(MemoryQueue):
        async def lease(self, queue: str, worker: str, *, count: int, wait_s: float) -> list[Delivery]:
            deliveries = await super().lease(queue, worker, count=count, wait_s=wait_s)
            for delivery in deliveries:
                self._line(queue).leased[delivery.job.id].until = float("inf")
            return deliveries

    def __init__(self, *given: object) -> None:
        super().__init__(*given)  # type: ignore[arg-type]
        self.queue = self.Queue(QUEUE, self.clock)

    def _wipe(self) -> None:
        """Never: asking again after a loss would hide the bug."""


class LosesAJob(World):
    """A job that is late is done without."""

    def _is_marked(self, trainer: Trainer) -> bool:
        return len(trainer.outstanding) <= 1


class WritesWithAnOldEpoch(World):
    """The coordinator takes a report from whoever brings it."""

    def _report(self, lease: Lease, step: int) -> None:
        with self.database.write() as session:
            run = session.scalars(select(RunRow)).one()
            row = {"run_id": run.id, "step": step, "epoch": lease.epoch, "metrics": {}, "created_at": now()}
            session.merge(MetricRow(**row, student_tokens=0, teacher_tokens=0))
            run.step = max(run.step, step)
            record(session, run, "metrics", f"step {step}", {"step": step, "epoch": lease.epoch})


class SavesBeforeItLearned(World):
    """The checkpoint of a step is committed before the step is done."""

    async def _advance(self, trainer: Trainer, lease: Lease) -> None:
        if trainer.done == "marked" and (trainer.step + 1) % 2 == 0 and trainer.step < 4:
            trainer.step += 1
            self._save(trainer, lease)
        else:
            await super()._advance(trainer, lease)


BUGS = {
    TrainsTwice: ("I2",),
    AcksEarly: ("I6",),
    LosesAJob: ("I3",),
    WritesWithAnOldEpoch: ("I1",),
    SavesBeforeItLearned: ("I1", "I3"),
}


@pytest.mark.parametrize("bug", BUGS)
async def test_a_bug_that_is_put_in_is_found(bug: type[World], database: Database, clock: Clock) -> None:
    for seed in range(200):
        found = await bug(seed, database, clock).play()
        if any(sentence.startswith(BUGS[bug]) for sentence in found):
            return
    pytest.fail(f"200 schedules did not find that it {bug.__name__}")
