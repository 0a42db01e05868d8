"""Queue, leases and runs under a simulated clock: the real state machines, driven by one seeded scheduler.

Real are `MemoryQueue` (held to the queue on a server by the contract suite) and the coordinator's leases, reports and
sweep over SQLite whose clock is the simulation's. Modelled, in a few lines each, are the trainer, the teacher and what
can happen to them: a crash at any point, a freeze for longer than a lease, a server that forgets everything, time that
jumps. Afterwards everything is well again, the run must end, and its history must hold.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import delete, event, select
from sqlalchemy.orm import Session

from tutelage.coordinator import leases, reports, runs
from tutelage.coordinator.db import Database
from tutelage.coordinator.events import events
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import RunRow
from tutelage.queue import Delivery, Job, MemoryQueue, Put, QueueLimits
from tutelage.serving import ServiceProblem
from tutelage_client.history import History, LearnedStep, broken
from tutelage_client.wire import CheckpointCommit, Heartbeat, Lease, Outcome, RunStatus, StepReport

STEPS, ROLLOUTS, SAVED_EVERY = 4, 2, 2
LEASE_S = 30.0
QUEUE = QueueLimits(lease_s=10.0, max_deliveries=50)
TURNS, TURNS_TO_END = 80, 3000
SPEC: dict[str, Any] = {
    "name": "simulated",
    "student": {"model": "/models/student"},
    "data": {"train": "/data/prompts.jsonl"},
    "objective": {"kind": "constant_penalty"},
    "optim": {"steps": STEPS},
}
BEGIN_S = 1.7e9  # of every schedule, so that it follows from its seed alone
DAY_S, JULIAN_1970 = 86400.0, 2440587.5


class Clock:
    """Seconds since 1970, for the queue and for SQL alike."""

    def __init__(self) -> None:
        self.now_s = BEGIN_S

    def __call__(self) -> float:
        return self.now_s

    def julian(self, _: str) -> float:
        return self.now_s / DAY_S + JULIAN_1970


class OneAtATime(Database):
    """A database that one schedule uses, in one thread: its transactions share a session, which is half the work.

    What was read is let go of with the next write.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._session = Session(self._writing, expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        yield self._session

    @contextmanager
    def write(self) -> Iterator[Session]:
        try:
            yield self._session
        except BaseException:
            self._session.rollback()
            raise
        self._session.commit()

    def close(self) -> None:
        self._session.close()
        super().close()


@contextmanager
def simulated_database(folder: Path, clock: Clock) -> Iterator[Database]:
    """A coordinator's database that tells the simulation's time and waits for no disk."""
    database = OneAtATime(f"sqlite:///{folder / 'simulated.db'}")

    def prepare(connection: Any, _: Any) -> None:
        connection.create_function("julianday", 1, clock.julian)
        connection.execute("PRAGMA synchronous = OFF")

    event.listen(database.engine, "connect", prepare)
    database.migrate()
    yield database
    database.close()


@dataclass
class Trainer:
    """One process that executes runs. `done` is how far it has come with the step under way."""

    name: str
    lease: Lease | None = None
    renewed_s: float = 0.0
    frozen: bool = False
    step: int = 0
    cursor: str = "0"
    outstanding: dict[str, Job] = field(default_factory=dict)
    got: list[str] = field(default_factory=list)
    done: str = "nothing"

    def dies(self) -> None:
        self.lease, self.frozen = None, False

    def begin_step(self) -> None:
        self.outstanding, self.got, self.done = {}, [], "nothing"


@dataclass
class Teacher:
    name: str
    held: list[Delivery] = field(default_factory=list)
    frozen: bool = False


class World:
    """One schedule. Subclasses put a bug in; `violations` says what the history shows of it."""

    def __init__(self, seed: int, database: Database, clock: Clock) -> None:
        self.random = random.Random(seed)
        self.database, self.clock = database, clock
        self.settings = Settings(lease_s=LEASE_S)
        self.queue = MemoryQueue(QUEUE, clock)
        self.trainers = [Trainer("trainer-0"), Trainer("trainer-1")]
        self.teachers = [Teacher("teacher-0"), Teacher("teacher-1")]
        self.learned: list[LearnedStep] = []
        self.run_id = ""
        self.ended = False  # the coordinator took an outcome that is final

    async def play(self) -> list[str]:
        """Faults and work at random, then work alone until the run ends; every violation."""
        self.clock.now_s = BEGIN_S
        self._submit()
        for _ in range(TURNS):
            await self.random.choice((self._work, self._work, self._work, self._harm))()
        for process in (*self.trainers, *self.teachers):
            process.frozen = False
        for _ in range(TURNS_TO_END):
            if self.ended:
                break
            await self._work()
            if all(trainer.lease is None for trainer in self.trainers):
                self._let_leases_lapse()
        return await self.violations()

    async def violations(self) -> list[str]:
        history = await self.history()
        found = broken(history)
        if not history.run.status.final:
            found.append(f"I6: without faults the run did not end; it is {history.run.status} at {history.run.step}")
        return found

    async def history(self) -> History:
        with self.database.read() as session:
            run = runs.view(runs.find(session, self.run_id))
            told = events(session, self.run_id, None, 10_000).data
            metrics = [row.root for row in reports.metrics(session, self.run_id, None, 10_000).data]
            saved = reports.checkpoints(session, self.run_id, None, 10_000).data
        return History(run, told, metrics, saved, self.learned, submitted_per_step=ROLLOUTS)

    def _submit(self) -> None:
        with self.database.write() as session:
            session.execute(delete(RunRow))
            self.run_id = runs.submit(session, SPEC, None)[0].id

    def status(self) -> RunStatus:
        with self.database.read() as session:
            return session.scalars(select(RunRow.status)).one()

    def _let_leases_lapse(self) -> None:
        """Nobody executes the run any more: nothing happens until whoever did is given up and one takes over."""
        self._claim(self.random.choice(self.trainers))
        if not any(trainer.lease for trainer in self.trainers):
            self.clock.now_s += LEASE_S
            self._sweep()

    def _sweep(self) -> None:
        if leases.sweep(self.database):
            self.ended = self.status().final

    # What the processes do

    async def _work(self) -> None:
        self.clock.now_s += self.random.uniform(0, 1.0)
        pick = self.random.random()
        if pick < 0.6:
            trainer = self.random.choice(self.trainers)
            if not trainer.frozen:
                await self._train(trainer)
        elif pick < 0.95:
            teacher = self.random.choice(self.teachers)
            if not teacher.frozen:
                await self._teach(teacher)
        else:
            self._sweep()

    async def _train(self, trainer: Trainer) -> None:
        """The next thing that the trainer does; a refusal of its epoch ends it."""
        silent_s = self.clock.now_s - trainer.renewed_s
        try:
            if trainer.lease is None:
                if self.random.random() < 0.15:
                    self._claim(trainer)
            elif silent_s > LEASE_S * 2 / 3 and self.random.random() < 0.7:  # else it froze between check and write
                trainer.dies()
            elif LEASE_S / 6 < silent_s < LEASE_S * 2 / 3:
                self._beat(trainer, trainer.lease)
            else:
                await self._advance(trainer, trainer.lease)
        except ServiceProblem as problem:
            assert problem.code == "stale_epoch", problem
            trainer.dies()

    def _claim(self, trainer: Trainer) -> None:
        with self.database.read() as session:
            if not leases.is_work_waiting(session):
                return
        with self.database.write() as session:
            trainer.lease = leases.claim(session, self.settings, trainer.name)
        if trainer.lease is not None:
            trainer.renewed_s, trainer.cursor = self.clock.now_s, "0"
            trainer.step = trainer.lease.checkpoint.step if trainer.lease.checkpoint else 0
            trainer.begin_step()
            self._beat(trainer, trainer.lease)
            if trainer.step == 0:
                self._report(trainer.lease, 0)

    def _beat(self, trainer: Trainer, lease: Lease) -> None:
        with self.database.write() as session:
            beat = Heartbeat(epoch=lease.epoch, status="running")
            leases.heartbeat(session, self.settings, self.run_id, beat)
        trainer.renewed_s = self.clock.now_s

    async def _advance(self, trainer: Trainer, lease: Lease) -> None:
        if trainer.done == "nothing":
            await self._ask(trainer)
        elif trainer.done == "asked":
            await self._read(trainer)
        elif trainer.done == "marked":
            trainer.step += 1
            self.learned.append(LearnedStep(lease.epoch, trainer.step, tuple(trainer.got), ()))
            trainer.done = "learned"
        elif trainer.done == "learned":
            self._report(lease, trainer.step)
            trainer.done = "reported"
        else:
            self._save(trainer, lease)

    async def _ask(self, trainer: Trainer) -> None:
        """The rollouts of a step follow from the step, so asking again is the same jobs."""
        names = [f"{self.run_id}/{trainer.step}/{index}" for index in range(ROLLOUTS)]
        trainer.outstanding = {n: Job(n, "toy", self.run_id, self.run_id, 1, b"?") for n in names}
        await self.queue.put(list(trainer.outstanding.values()))
        trainer.done = "asked"

    async def _read(self, trainer: Trainer) -> None:
        answers, trainer.cursor = await self.queue.answers(self.run_id, after=trainer.cursor, wait_s=0)
        for answer in answers:
            self._take(trainer, answer.job_id)
        if self._is_marked(trainer):
            trainer.done = "marked"
        elif self.random.random() < 0.3:
            await self.queue.put(list(trainer.outstanding.values()))

    def _take(self, trainer: Trainer, job_id: str) -> None:
        if trainer.outstanding.pop(job_id, None) is not None:
            trainer.got.append(job_id)

    def _is_marked(self, trainer: Trainer) -> bool:
        return not trainer.outstanding

    def _report(self, lease: Lease, step: int) -> None:
        with self.database.write() as session:
            report = StepReport(epoch=lease.epoch, step=step, metrics={}, student_tokens=0, teacher_tokens=0)
            reports.step(session, self.run_id, report)

    def _save(self, trainer: Trainer, lease: Lease) -> None:
        is_last = trainer.step == STEPS
        with self.database.write() as session:
            if is_last or trainer.step % SAVED_EVERY == 0:
                commit = CheckpointCommit(epoch=lease.epoch, step=trainer.step, path="p", weights_sha256="w")
                reports.commit(session, self.run_id, commit)
            if is_last:
                leases.finish(session, self.settings, self.run_id, Outcome(epoch=lease.epoch, result="succeeded"))
        trainer.begin_step()
        if is_last:
            self.ended = True
            trainer.dies()

    async def _teach(self, teacher: Teacher) -> None:
        pick = self.random.random()
        if teacher.held and pick < 0.5:
            delivery = teacher.held.pop(self.random.randrange(len(teacher.held)))
            await self.queue.answer([(delivery, b"!")])
        elif teacher.held and pick < 0.6:
            teacher.held = [d for d in teacher.held if d not in await self.queue.renew(teacher.held)]
        else:
            teacher.held += await self.queue.lease("toy", teacher.name, count=2, wait_s=0)

    # What happens to them

    async def _harm(self) -> None:
        trainer, teacher = self.random.choice(self.trainers), self.random.choice(self.teachers)
        pick = self.random.random()
        if pick < 0.1:
            trainer.dies()
        elif pick < 0.3:
            trainer.frozen = not trainer.frozen
            self.clock.now_s += self.random.uniform(0, LEASE_S * 1.5)
            self._sweep()
        elif pick < 0.4:
            await self._kill(teacher)
        elif pick < 0.6:
            teacher.frozen = not teacher.frozen
        elif pick < 0.65:
            self._wipe()
        elif pick < 0.8:
            self.clock.now_s += self.random.uniform(0, LEASE_S * 1.5)
        else:
            await self._replay()

    async def _kill(self, teacher: Teacher) -> None:
        """It forgets what it holds and is started again."""
        teacher.held, teacher.frozen = [], False

    def _wipe(self) -> None:
        """A new server under the old name; every reader's cursor is beyond its end, as on a flushed one."""
        self.queue = MemoryQueue(QUEUE, self.clock)
        for trainer in self.trainers:
            trainer.cursor = "0"

    async def _replay(self) -> None:
        """Someone asks again about a step that may be over long ago."""
        step = self.random.randrange(STEPS)
        name = f"{self.run_id}/{step}/{self.random.randrange(ROLLOUTS)}"
        put = await self.queue.put([Job(name, "toy", self.run_id, self.run_id, 1, b"?")])
        assert put[0] in Put


def played(folder: Path, seeds: Sequence[int]) -> list[tuple[int, list[str], RunStatus]]:
    """Of each schedule its seed, every violation, and how the run ended."""

    async def play() -> list[tuple[int, list[str], RunStatus]]:
        clock = Clock()
        with simulated_database(folder, clock) as database:
            worlds = [World(seed, database, clock) for seed in seeds]
            return [(seed, await world.play(), world.status()) for seed, world in zip(seeds, worlds, strict=True)]

    return asyncio.run(play())
