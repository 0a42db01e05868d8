"""Samplers on other machines, as the trainer asks them for a step's text: a job for each rollout, over the queue.

Asking is idempotent, so it is repeated while an answer is missing, which rebuilds the work after the queue lost its
memory. What samplers give up the trainer writes itself, with the same draws.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from tutelage.engines.sampling import Sampled
from tutelage.engines.snapshots import Base
from tutelage.queue.base import Answer, Job, Put, Queue
from tutelage.trainer import sending
from tutelage.trainer.access import Access
from tutelage.trainer.checkpoint import NotSaved
from tutelage.trainer.session import Session
from tutelage.trainer.snapshots import Snapshots
from tutelage.trainer.sourcing import Texts, written_here
from tutelage.trainer.student import Student
from tutelage.trainer.writer import Writer
from tutelage_client.errors import InvalidInput, ServiceUnreachable, TutelageError
from tutelage_client.spec import RolloutSpec, RunSpec
from tutelage_client.tracing import CONTEXT, traceparent
from tutelage_client.wire import SampledText, SampleReply, SampleRequest, SnapshotRef, sampler_queue

CONDITION = "sampler_available"
READ_WAIT_S = 1.0
UNREACHABLE_WAIT_S = 0.5


class NoText(TutelageError):
    """A job ended without one."""


@dataclass
class Wanted:
    """The texts of a step that are not there yet, by the id of their job: the place of each, and the job.

    outside: jobs that found no room in the queue; given_up: places of which no text will come; reason: of the last
    """

    snapshot: SnapshotRef | None = None
    jobs: dict[str, tuple[int, Job]] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    given_up: set[int] = field(default_factory=set)
    reason: str | None = None

    def end(self, answer: Answer) -> tuple[int, Sampled] | None:
        """The policy version and the text of an answer that is waited for; None of any other, and without a text."""
        place, _ = self.jobs.pop(answer.job_id, (None, None))
        if place is None:
            return None
        self.outside.discard(answer.job_id)
        try:
            text = self._text(answer)
        except NoText as error:
            self.given_up.add(place)
            self.reason = str(error)
            return None
        sampled = Sampled(place, text.token_ids.tolist(), text.logprobs.tolist(), text.finish_reason)
        return text.policy_version, sampled

    def _text(self, answer: Answer) -> SampledText:
        if answer.payload is None:
            raise NoText(answer.reason or "no reason given")
        try:
            text = SampleReply.model_validate_json(answer.payload).text
        except ValidationError as error:
            raise NoText(f"the answer is no text: {error.error_count()} errors in it") from error
        if text is None:
            raise NoText("the sampler did not find the snapshot; does it see the run's artefact directory?")
        if self.snapshot is not None and text.policy_version > self.snapshot.policy_version:
            raise NoText(f"the text is of policy version {text.policy_version}, which this attempt did not publish")
        return text


class Samplers:
    """Those of one name, for one attempt at a run, which they write one step at a time.

    Leaving it as a context takes the snapshots away: nobody wants text of them any more.

    away_s: how long to hear nothing before jobs are put again; if no sampler holds one then, they count as away
    """

    def __init__(
        self, name: str, queue: Queue, session: Session, snapshots: Snapshots, access: Access, away_s: float = 10.0
    ) -> None:
        self.name = name
        self.away_s = away_s
        self._queue = queue
        self._session = session
        self._snapshots = snapshots
        self._access = access
        self._replies = f"{session.run_id}/texts/e{session.epoch}"
        self._cursor = "0"
        self._wanted = Wanted()
        self._heard_s = self._put_s = time.monotonic()
        session.conditions[CONDITION] = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._snapshots.clear)

    async def written(
        self, writer: Writer, prompts: Sequence[Sequence[int]], settings: RolloutSpec, seed: int
    ) -> AsyncGenerator[Texts]:
        """A text to each prompt, as they come."""
        wanted = self._wanted = await self._asked(writer, prompts, settings, seed)
        while wanted.jobs:
            if texts := await self._next(wanted):
                yield texts
        if wanted.given_up:
            sentence = f"{len(wanted.given_up)} of {len(prompts)} texts of this step are not samplers', the last"
            message = f"{sentence} because: {wanted.reason}; the trainer writes them itself"
            await self._session.event("rollout", message, "warning", sampler=self.name)
            async for texts in written_here(writer, prompts, settings, seed, wanted.given_up):
                yield texts

    async def give_up(self) -> None:
        """The run asks for nothing more."""
        if self._wanted.jobs:
            await self._access.insist("texts", lambda: self._queue.cancel(self._session.run_id))

    async def _asked(
        self, writer: Writer, prompts: Sequence[Sequence[int]], settings: RolloutSpec, seed: int
    ) -> Wanted:
        """Publish the writer's weights and ask for text of them."""
        try:
            snapshot = await asyncio.to_thread(self._snapshots.publish, writer)
        except NotSaved as error:
            return Wanted(given_up=set(range(len(prompts))), reason=str(error))
        wanted = Wanted(snapshot)
        for place, prompt in enumerate(prompts):
            asked = {"snapshot": snapshot, "prompt_ids": list(prompt), "place": place, "places": len(prompts)}
            asked |= settings.model_dump(include={"max_new_tokens", "temperature", "top_p"}) | {"seed": seed}
            job = self._job(SampleRequest.model_validate(asked))
            wanted.jobs[job.id] = (place, job)
        self._heard_s = time.monotonic()
        await self._put(wanted, list(wanted.jobs))
        return wanted

    def _job(self, request: SampleRequest) -> Job:
        payload, run_id = request.model_dump_json().encode(), self._session.run_id
        own_id = hashlib.sha256(f"{run_id}/text/".encode() + payload).hexdigest()[:32]
        tokens = len(request.prompt_ids) + request.max_new_tokens
        trace = (traceparent(run_id, own_id), CONTEXT.get().tracestate)
        return Job(own_id, sampler_queue(self.name), self._replies, run_id, tokens, payload, *trace)

    async def _put(self, wanted: Wanted, names: Sequence[str]) -> None:
        jobs = [wanted.jobs[name][1] for name in names]
        told = [{} if wanted.snapshot is None else {"opd.policy_version": wanted.snapshot.policy_version}] * len(jobs)
        results = await self._access.insist("texts", lambda: sending.put(self._queue, jobs, told))
        self._put_s = time.monotonic()
        for name, result in zip(names, results, strict=True):
            if result is Put.DEAD:
                wanted.end(Answer(name, None, "it was given up before"))
            elif result is Put.FULL:
                wanted.outside.add(name)
            else:
                wanted.outside.discard(name)

    async def _next(self, wanted: Wanted) -> Texts:
        """What came in a second, and whatever is to be done while the rest is missing."""
        texts = [text for answer in await self._answers() if (text := wanted.end(answer)) is not None]
        if texts:
            await self._hear()
        if wanted.outside:
            first, *others = wanted.outside
            await self._put(wanted, [first])
            if first not in wanted.outside:
                await self._put(wanted, others)
        elif wanted.jobs and time.monotonic() - self._put_s > self.away_s:
            await self._put(wanted, list(wanted.jobs))
        if wanted.jobs:
            await self._miss(len(wanted.jobs))
        await self._access.tell(self._session)
        return texts

    async def _answers(self) -> list[Answer]:
        try:
            answers, self._cursor = await self._queue.answers(self._replies, after=self._cursor, wait_s=READ_WAIT_S)
        except ServiceUnreachable as error:
            self._access.refuse("texts", str(error))
            await asyncio.sleep(UNREACHABLE_WAIT_S)
            self._heard_s = time.monotonic()
            return []
        self._access.grant("texts")
        return answers

    async def _hear(self) -> None:
        self._heard_s = time.monotonic()
        if not self._session.conditions[CONDITION]:
            self._session.conditions[CONDITION] = True
            await self._session.event("rollout", f"samplers {self.name!r} write again", sampler=self.name)

    async def _miss(self, missing: int) -> None:
        """Say once that nobody writes."""
        silence_s = time.monotonic() - self._heard_s
        if silence_s < self.away_s or not self._session.conditions[CONDITION]:
            return
        depth = await self._access.insist("texts", lambda: self._queue.depth(sampler_queue(self.name)))
        if depth.leased:
            return
        self._session.conditions[CONDITION] = False
        sentence = f"no sampler {self.name!r} has taken any of {missing} texts for {silence_s:.0f} s"
        message = f"{sentence}; start python -m tutelage.sampler --name {self.name}, the run waits for it"
        await self._session.event("rollout", message, "warning", sampler=self.name)


def samplers_of(
    session: Session, spec: RunSpec, student: Student, folder: Path, queue: Queue, access: Access
) -> Samplers | None:
    """Those whom a run has its text written by, if any. folder: of the student

    Raises:
        InvalidInput: several ranks share the student.
    """
    if spec.rollout.sampler is None:
        return None
    if student.processes > 1:
        sentence = "several ranks write the text of a student that they share; remove it, or start one trainer"
        raise InvalidInput(f"rollout.sampler: {sentence}", "rollout.sampler")
    base = Base(model=str(folder), revision=spec.student.revision) if spec.student.lora else None
    root = Path(session.lease.artefacts) / "snapshots"
    snapshots = Snapshots(root, session.epoch, spec.rollout.max_lag, base)
    return Samplers(spec.rollout.sampler, queue, session, snapshots, access)
