"""The steps under way: written one after the other, marked beside each other, taken in order to be learned from.

Step k may be written as soon as the student has done k - max_lag optimiser steps, so that at most max_lag lie between
its writing and its learning. At 0 that is one step at a time; above it the next ones are written and marked while one
is learned from.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

from tutelage.about import tell_about
from tutelage.rewards import Graders
from tutelage.tracing import span, started
from tutelage.trainer.marking import Scored, Timeline, unheard
from tutelage.trainer.mixing import weighed
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.rewarding import graded
from tutelage.trainer.rollouts import SOURCES
from tutelage.trainer.sourcing import Sources
from tutelage_client.spec import RunSpec
from tutelage_client.tracing import CONTEXT, TraceContext
from tutelage_client.wire import ModelReward, Rollout

Marks = tuple[list[Scored], Timeline]
Arrive = Callable[[Scored], None]
FILE = "ahead.jsonl"


@dataclass(eq=False)
class Underway:
    """A step that was begun.

    rollouts: what is written of it so far; whole: that is all of it
    arrived: what was marked before anybody asked; arrive: who is told of the others
    """

    step: int
    rollouts: list[Rollout] = field(default_factory=list)
    whole: bool = False
    arrived: list[Scored] = field(default_factory=list)
    arrive: Arrive | None = None
    marks: asyncio.Task[Marks] | None = None

    def hear(self, scored: Scored) -> None:
        """One more of its rollouts has its marks."""
        if self.arrive is None:
            self.arrived.append(scored)
        else:
            self.arrive(scored)

    def tell(self, arrive: Arrive) -> None:
        """Of each rollout that has its marks, now and from now on."""
        self.arrive = arrive
        for scored in self.arrived:
            arrive(scored)
        self.arrived.clear()


class Ahead:
    """Begins the steps of a run and hands them out. While entered nothing of it outlives an error.

    kept: by step, what an earlier attempt had written and not learned from
    """

    def __init__(
        self, spec: RunSpec, sources: Sources, pipeline: Pipeline | None, kept: Mapping[int, list[Rollout]]
    ) -> None:
        self.spec = spec
        self.sources = sources
        self.pipeline = pipeline
        self.kept = dict(kept)
        self._underway: dict[int, Underway] = {}
        self._writing = asyncio.Lock()
        self._graders = Graders()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()
        await self._graders.close()

    @property
    def queued(self) -> int:
        """Rollouts that are written and of no step that was learned from."""
        return sum(len(each.rollouts) for each in self._underway.values()) + sum(map(len, self.kept.values()))

    async def taken(self, step: int, arrive: Arrive = unheard) -> Marks:
        """The marked rollouts of a step. Those that may be begun beside it go on meanwhile.

        arrive: told of each as soon as it has the teacher's marks

        Raises:
            TeacherFailed: as its source and the pipeline.
        """
        self._begin_from(step)
        marking = self._underway[step].marks
        assert marking is not None
        self._underway[step].tell(arrive)
        marks = await marking
        del self._underway[step]
        return marks

    def go_on(self, step: int) -> None:
        """A version is there: with text that may be older than the newest, do not wait until it is told and saved."""
        if self.spec.rollout.max_lag:
            self._begin_from(step)

    def fates(self) -> dict[str, float]:
        """What became of all rollouts, as metrics; those under way are counted, not reckoned."""
        counted = asdict(self.sources.ledger.rollouts) | {"queued": self.queued}
        return {f"rollouts/{name}": float(count) for name, count in counted.items()}

    async def give_up(self) -> None:
        """The run ends: what is under way is dropped."""
        await self._stop()
        if self.pipeline is not None:
            await self.pipeline.outages.give_up(is_waiting=self.queued > 0)
        self.sources.ledger.drop(self.queued)
        self._underway.clear()
        self.kept.clear()

    def at_rest(self) -> dict[int, list[Rollout]]:
        """By step, what a checkpoint keeps to be asked about again; what is half written is written again."""
        if not self.spec.rollout.max_lag:
            return {}
        return self.kept | {step: list(each.rollouts) for step, each in self._underway.items() if each.whole}

    async def _stop(self) -> None:
        tasks = [each.marks for each in self._underway.values() if each.marks is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # an error reaches who takes the step

    def _begin_from(self, step: int) -> None:
        """What the student of this version may be asked for."""
        for begun in range(step, min(step + self.spec.rollout.max_lag, self.spec.optim.steps - 1) + 1):
            if begun not in self._underway:
                self._underway[begun] = self._begin(begun)

    def _begin(self, step: int) -> Underway:
        begun = Underway(step, self.kept.pop(step, []))
        begun.whole = bool(begun.rollouts)
        begun.marks = asyncio.create_task(self._marked(begun))
        return begun

    async def _marked(self, begun: Underway) -> Marks:
        """The step's rollouts with the teacher's marks and the graders' rewards, where any are wanted."""
        tell_about(step=begun.step + 1)  # of this task
        async with aclosing(self._written(begun, CONTEXT.get())) as rollouts:
            if self.pipeline is None:
                scored, timeline = [Scored(each, None) async for ended in rollouts for each in ended], Timeline()
            else:
                with span("ask", {}):
                    scored, timeline = await self.pipeline.scored(rollouts, begun.hear)
        if (share := self.spec.rollout.teacher_share) is not None:
            known = sum(each.scores is not None for each in scored)
            scored = await asyncio.to_thread(weighed, scored, self.sources.student, share)
            self.sources.ledger.dropped_rollouts += known - sum(each.scores is not None for each in scored)
        reward = self.spec.reward
        if reward is not None and not isinstance(reward.by, ModelReward):
            scored = await graded(scored, reward.by, self.sources.student.text, self._graders)
        return scored, timeline

    async def _written(self, begun: Underway, context: TraceContext) -> AsyncGenerator[list[Rollout]]:
        """One step after the other: its writer has the weights of one version until its last text is asked about."""
        async with self._writing:
            if begun.whole:
                yield begun.rollouts
                return
            writing = started("write", {}, parent=context)  # beside the asking, which takes what this yields
            await asyncio.to_thread(self.sources.student.follow)
            async with aclosing(SOURCES[self.spec.rollout.source](self.sources, begun.step)) as written:
                async for ended in written:
                    begun.rollouts += ended
                    self.sources.ledger.submit(ended)
                    yield ended
            begun.whole = True
            writing.tell({"opd.rollouts": len(begun.rollouts)})
            writing.end()


def write(kept: Mapping[int, Sequence[Rollout]], folder: Path) -> None:
    """The file of a checkpoint, a line for each rollout; none where there is none."""
    if not kept:
        return
    lines = (
        json.dumps({"step": step, "rollout": rollout.model_dump(mode="json")}) + "\n"
        for step, rollouts in kept.items()
        for rollout in rollouts
    )
    (folder / FILE).write_text("".join(lines), encoding="utf-8")


def read(folder: Path) -> dict[int, list[Rollout]]:
    """What `write` wrote, if anything was under way."""
    kept: dict[int, list[Rollout]] = {}
    if not (folder / FILE).exists():
        return kept
    with (folder / FILE).open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            kept.setdefault(line["step"], []).append(Rollout.model_validate(line["rollout"]))
    return kept
