"""The teachers of a run as an attempt finds them: who each is, which lines it takes, how its HTTP door is reached."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Self

from tutelage.addresses import LOOPBACK, Allowed
from tutelage.trainer.exits import TeacherFailed, TeacherOutage
from tutelage.trainer.reaching import Reaching
from tutelage.trainer.session import Session
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy
from tutelage_client.spec import RunSpec, TeacherRef, teacher_for
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import EntryDtype, Provenance, TeacherView

REGISTRY_POLL_S = 1.0


@dataclass(frozen=True)
class Teacher:
    """One teacher of the run. view: how it is registered; client: its HTTP door."""

    ref: TeacherRef
    view: TeacherView
    client: TeacherClient

    @property
    def name(self) -> str:
        return self.ref.name

    @property
    def provenance(self) -> Provenance:
        return self.view.info.provenance

    @property
    def max_length(self) -> int:
        return self.view.info.capabilities.max_length

    @property
    def writes_tokens(self) -> bool:
        """Whether its text comes as token ids; a hosted model reads and writes text alone."""
        return self.view.info.capabilities.vocabulary_size is not None

    def reads_tokens(self, spec: RunSpec) -> bool:
        """Whether token ids pass between student and teacher, so that they must share a tokenizer."""
        return spec.asks_teacher_scores or (spec.rollout.source == "teacher" and self.writes_tokens)


@dataclass(frozen=True)
class Doors:
    """How teachers are asked over HTTP. allowed: where they may be; key: what they are shown there"""

    allowed: Allowed
    key: str | None = None

    def open(self, session: Session, ref: TeacherRef, view: TeacherView) -> TeacherClient:
        """The door of one. Its absence is waited for, as that of the queue is, as long as the spec allows.

        Raises:
            TeacherFailed: what is registered is no address.
        """
        budget_s = ref.patience_s if ref.on_loss == "fail" else ref.outage_budget_s
        retry = RetryPolicy(deadline_s=math.inf if budget_s is None else budget_s)
        try:
            transport = Reaching(view.url, self.allowed)
        except InvalidInput as error:
            raise TeacherFailed("teacher_not_allowed", f"teacher {view.name!r}: {error}") from error
        return TeacherClient(view.url, self.key, transport, retry, session.run_id)


HERE = Doors(Allowed(LOOPBACK))


@dataclass(frozen=True)
class Teachers:
    """All teachers of the run, in the order of the spec; leaving it as a context closes their connections.

    all: those that lines go to; stand_ins: those that are asked only in place of one of them
    """

    all: tuple[Teacher, ...] = ()
    stand_ins: tuple[Teacher, ...] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for teacher in self.everyone:
            await teacher.client.close()

    @property
    def everyone(self) -> tuple[Teacher, ...]:
        return self.all + self.stand_ins

    @property
    def provenances(self) -> dict[str, Provenance]:
        """Who each of them is, by name."""
        return {teacher.name: teacher.provenance for teacher in self.everyone}

    @property
    def hidden_dtypes(self) -> dict[str, EntryDtype]:
        """In what the hidden states of each of them lose nothing, by name."""
        return {teacher.name: teacher.view.info.capabilities.hidden_dtype for teacher in self.everyone}

    def of(self, tag: str | None) -> Teacher:
        """Who is asked about a line with this tag.

        Raises:
            InvalidInput: nobody is.
        """
        ref = teacher_for([teacher.ref for teacher in self.all], tag)
        return self.named(ref.name)

    def named(self, name: str) -> Teacher:
        return next(teacher for teacher in self.everyone if teacher.name == name)

    def may_ask(self, teacher: Teacher, tag: str | None) -> bool:
        """Whether it is asked about a line with this tag, or may be in place of who is."""
        own = self.of(tag)
        return teacher is own or teacher.name == own.ref.failover_to


async def open_teachers(session: Session, spec: RunSpec, coordinator: CoordinatorClient, doors: Doors) -> Teachers:
    """The teachers that the spec names, once all are registered.

    Raises:
        TeacherFailed: one with `on_loss = "fail"` is not registered any more, or one has no address.
        TeacherOutage: one was waited for as long as its `outage_budget_s` allows.
        Fenced, StopRun: the run must end while it waits for one.
    """
    found = dict(session.lease.teachers)
    stand_ins = [ref.model_copy(update={"name": ref.failover_to}) for ref in spec.teachers if ref.failover_to]
    opened: dict[str, Teacher] = {}
    for ref in [*spec.teachers, *stand_ins]:
        if ref.name not in opened:
            view = found.get(ref.name) or await _registered(session, ref, coordinator)
            opened[ref.name] = Teacher(ref, view, doors.open(session, ref, view))
    every = tuple(opened.values())
    return Teachers(every[: len(spec.teachers)], every[len(spec.teachers) :])


async def _registered(session: Session, ref: TeacherRef, coordinator: CoordinatorClient) -> TeacherView:
    """The teacher as soon as the coordinator knows it again: nobody stands in for one of whom nothing is known."""
    sentence = f"teacher {ref.name!r} is not registered with the coordinator any more"
    if ref.on_loss == "fail":
        raise TeacherFailed("teacher_gone", f'{sentence}; start it, or set on_loss = "pause" to wait for it')
    await session.event("teacher", f"{sentence}; the run waits until it is started again", "warning")
    session.conditions["teacher_available"] = False
    budget_s = math.inf if ref.outage_budget_s is None else ref.outage_budget_s
    until_s = time.monotonic() + budget_s
    while time.monotonic() < until_s:
        session.check()
        for view in await coordinator.teachers():
            if view.name == ref.name:
                session.conditions["teacher_available"] = True
                return view
        await asyncio.sleep(REGISTRY_POLL_S)
    raise TeacherOutage(f"{sentence}, and its outage_budget_s = {budget_s:g} is spent")
