"""Every rollout has one fate or is under way, at every instant, whoever gives up, and whenever the power goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from recording_worker import RecordingWorker, lease
from toy_teacher import answering, honest

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer import ahead
from tutelage.trainer.ahead import Ahead
from tutelage.trainer.answers import Answers
from tutelage.trainer.asking import Asker
from tutelage.trainer.data import Example
from tutelage.trainer.fates import Ended
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.session import Session
from tutelage.trainer.sourcing import Sources
from tutelage.trainer.teachers import Teachers
from tutelage.trainer.writer import Writer
from tutelage_client.spec import RunSpec

TOP = {"kind": "divergence", "support": {"kind": "teacher_top_k", "k": 3}}
STEPS, A_STEP = 6, 3
DEADLINE_S = 20.0


class Versions(Writer):
    """A student of which only its version matters."""

    def __init__(self) -> None:
        self.step = 0


class PowerCut(Exception):
    """The process is gone."""


class Attempts:
    """The attempts at one run. `check` looks at it at every point where something has happened."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.spec, self.folder = spec, folder
        self.queue = MemoryQueue()
        self.learned: dict[int, list[str]] = {}
        self.save(0, Ledger(), {})

    def save(self, step: int, ledger: Ledger, kept: dict[int, Any]) -> None:
        self.newest = Path(mkdtemp(dir=self.folder))
        ahead.write(kept, self.newest)
        self.saved = json.dumps({"step": step, "ledger": ledger.at_rest(sum(map(len, kept.values())))})

    @asynccontextmanager
    async def attempt(self) -> AsyncGenerator[tuple[int, Ledger, Ahead]]:
        state, kept = json.loads(self.saved), ahead.read(self.newest)
        ledger, student = Ledger.restored(state["ledger"]), Versions()
        student.step = state["step"]
        session = Session(cast("Any", RecordingWorker()), lease({}, str(self.folder)))
        provenances = {"toy": FakeEngine(FakeOptions(), "toy").provenance}
        pipeline = Pipeline(Answers(Asker(self.queue, "run-1", self.spec), session, provenances, ledger))
        examples = [Example("p", [2, 3], [4 + i], None, None, i + 1) for i in range(A_STEP)]
        sources = Sources(5, self.spec.rollout, examples, student, Teachers(), ledger)
        async with pipeline, Ahead(self.spec, sources, pipeline, kept) as steps:
            assert ledger.rollouts.queued == steps.queued
            yield state["step"], ledger, steps

    async def one(self, cuts: set[int], saves: set[int], looking: list[Callable[[], None]]) -> None:
        """Learn until the run ends, or until the power goes after a step."""
        async with self.attempt() as (step, ledger, steps):

            def look() -> None:
                assert ledger.rollouts.queued == steps.queued

            looking[:] = [look]
            for k in range(step, STEPS):
                scored, _ = await steps.taken(k)
                done = Ended.of(scored, [], asks_teacher=True, in_pairs=False)
                ledger.rollouts = ledger.rollouts.after(done)
                look()
                self.learned[k] = [each.rollout.id for each in done.trained]
                steps.sources.student.step = k + 1
                steps.go_on(k + 1)
                if k + 1 in saves:
                    self.save(k + 1, ledger, steps.at_rest())
                if k + 1 in cuts:
                    cuts.remove(k + 1)
                    raise PowerCut
            self.save(STEPS, ledger, steps.at_rest())


async def played(attempts: Attempts, refused: set[int], cuts: set[int], saves: set[int]) -> None:
    looking: list[Callable[[], None]] = []

    async def reply(engine: FakeEngine, request: Any) -> bytes | None:
        for look in looking:
            look()
        (completion,) = request.groups()[0].completions
        return None if int(completion.token_ids[0]) - 4 in refused else await honest(engine, request)

    async with asyncio.timeout(DEADLINE_S), answering(attempts.queue, reply):
        while True:
            try:
                await attempts.one(cuts, saves, looking)
            except PowerCut:
                continue
            return


STEP_NUMBERS = st.sets(st.integers(1, STEPS - 1))


@settings(max_examples=40, deadline=None)
@given(
    max_lag=st.integers(0, 3),
    refused=st.sets(st.integers(0, A_STEP - 1), max_size=A_STEP - 1),
    cuts=STEP_NUMBERS,
    saves=STEP_NUMBERS,
)
def test_submitted_is_trained_and_left_out_and_queued_whatever_happens(
    make_spec: Any, max_lag: int, refused: set[int], cuts: set[int], saves: set[int]
) -> None:
    rollout = {"source": "data", "prompts_per_step": A_STEP, "max_lag": max_lag}
    with TemporaryDirectory() as folder:
        attempts = Attempts(make_spec(TOP, rollout=rollout, optim={"steps": STEPS}), Path(folder))
        asyncio.run(played(attempts, refused, cuts, saves))
    fates = Ledger.restored(json.loads(attempts.saved)["ledger"]).rollouts
    assert fates.submitted == STEPS * A_STEP
    assert fates.trained == STEPS * (A_STEP - len(refused))
    assert fates.dead_lettered == STEPS * len(refused)
    assert fates.queued == fates.stale == fates.dropped == 0
    trained = [name for names in attempts.learned.values() for name in names]
    assert len(trained) == len(set(trained)) == fates.trained
