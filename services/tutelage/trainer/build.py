"""From a leased spec to the objects of a run.

Everything that only data, tokenizer and teacher can tell is checked here, while the run is `validating`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from tutelage.core.batch import OutputHead
from tutelage.queue.base import Queue
from tutelage.trainer import determinism, validate
from tutelage.trainer.access import Access
from tutelage.trainer.ahead import Ahead
from tutelage.trainer.answers import Answers
from tutelage.trainer.asking import Asker
from tutelage.trainer.data import Example, encode, read_lines
from tutelage.trainer.exits import asking_teacher
from tutelage.trainer.inbox import Inbox
from tutelage.trainer.inputs import local_model, local_path
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.origin import origin_of
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.questions import needs_candidates
from tutelage.trainer.replay import Replay
from tutelage.trainer.resuming import resume
from tutelage.trainer.rewarding import item
from tutelage.trainer.run import Run
from tutelage.trainer.samplers import samplers_of
from tutelage.trainer.session import Session
from tutelage.trainer.sourcing import Sources, written_here
from tutelage.trainer.student import Student
from tutelage.trainer.teachers import HERE, Doors, Teachers, open_teachers
from tutelage.trainer.watching import absent, watched
from tutelage.trainer.world import ALONE, World
from tutelage.trainer.writer import Writer
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.spec import RunSpec, required_signals
from tutelage_client.wire import Lease, Signal


async def build(
    session: Session,
    spec: RunSpec,
    coordinator: CoordinatorClient,
    queue: Queue,
    doors: Doors = HERE,
    world: World = ALONE,
) -> Run:
    """Load, check and wire a run; resume from its newest whole checkpoint.

    doors: how teachers are asked over HTTP; world: the processes that execute it

    Raises:
        InvalidInput: something that the run's owner can mend.
        TeacherFailed: a teacher refuses, is gone, or is not the one that this run began with.
    """
    if spec.deterministic:
        determinism.settle()
    artefacts = Path(session.lease.artefacts)
    teachers = await open_teachers(session, spec, coordinator, doors)
    folders = {
        name: await local_model(model, coordinator, session.lease, f"{name}.model")
        for name, model in (("student", spec.student), ("reference", spec.reference))
        if model is not None
    }
    student = await asyncio.to_thread(world.load, folders["student"], spec, folders.get("reference"))
    train, held_out = await load_data(spec, student, teachers, coordinator, session.lease)
    replay = None if spec.rollout.adaptive is None else Replay(spec.rollout.adaptive, spec.optim.steps)
    origin = await asyncio.to_thread(origin_of, session.lease.spec, student, train, held_out)
    standing = await resume(session, student, replay, teachers, origin)
    session.teachers = teachers.provenances
    ledger = standing.ledger
    if Signal.HIDDEN in required_signals(spec):
        with asking_teacher():
            heads = {each.name: await session.while_wanted(each.client.head()) for each in teachers.everyone}
        made: dict[str | None, OutputHead] = {name: output_head(arrays, student) for name, arrays in heads.items()}
        await asyncio.to_thread(student.hear_through, made)
    if standing.begins:
        await tell_absent(session, spec, teachers)
    objective = objective_of(spec, student)
    writer = world.writer(student, objective)
    pipeline = pipeline_of(session, spec, writer, queue, teachers, ledger)
    access = Access() if pipeline is None else pipeline.answers.asker.access
    samplers = samplers_of(session, spec, student, folders["student"], queue, access)
    write = written_here if samplers is None else samplers.written
    inbox = inbox_of(session, spec, student, teachers, ledger)
    sources = Sources(spec.seed, spec.rollout, train, writer, teachers, ledger, replay, inbox, write)
    return Run(
        spec=spec,
        session=session,
        student=student,
        sources=sources,
        teachers=teachers,
        pipeline=pipeline,
        samplers=samplers,
        ahead=Ahead(spec, sources, pipeline, standing.underway),
        objective=objective,
        ledger=ledger,
        eval_examples=held_out,
        artefacts=artefacts,
        origin=origin,
        kept=standing.kept,
    )


def inbox_of(session: Session, spec: RunSpec, student: Student, teachers: Teachers, ledger: Ledger) -> Inbox | None:
    """Where the run learns from what others push to it; the coordinator hears what of that can be read."""
    if spec.rollout.source != "pushed":
        return None
    session.limits = validate.readable(spec, student, teachers)
    return Inbox(session, session.limits, ledger.pushed_after)


def pipeline_of(
    session: Session, spec: RunSpec, student: Writer, queue: Queue, teachers: Teachers, ledger: Ledger
) -> Pipeline | None:
    """The way to the teachers and back, where the run asks for scores or rewards."""
    if not (spec.asks_teacher_scores or spec.asks_teacher_rewards):
        return None
    k = needs_candidates(spec)
    candidates = (lambda rollout: student.top_ids(rollout, k)) if k else None
    asker = Asker(
        queue,
        session.run_id,
        spec,
        candidates,
        lambda rollout: item(rollout, student.text),
        teachers.hidden_dtypes,
        {teacher.name: watched(spec, teacher.view.info.capabilities) for teacher in teachers.everyone},
    )
    return Pipeline(Answers(asker, session, teachers.provenances, ledger))


async def tell_absent(session: Session, spec: RunSpec, teachers: Teachers) -> None:
    """One event for each teacher of which the run lacks diagnostics."""
    for teacher in teachers.everyone:
        if (sentence := absent(spec, teacher.name, teacher.view.info.capabilities)) is not None:
            await session.event("log", sentence)


def output_head(arrays: dict[str, NDArray[Any]], student: Student) -> OutputHead:
    """The teacher's output head on the student's device."""
    bias = arrays.get("bias")
    return OutputHead(
        weight_VH=torch.from_numpy(arrays["weight"]).to(student.device),
        bias_V=None if bias is None else torch.from_numpy(bias).to(student.device),
        scale=float(arrays["scale"][0]) if "scale" in arrays else 1.0,
        softcap=float(arrays["softcap"][0]) if "softcap" in arrays else None,
    )


async def load_data(
    spec: RunSpec, student: Student, teachers: Teachers, coordinator: CoordinatorClient, lease: Lease
) -> tuple[list[Example], list[Example] | None]:
    """Training and held-out examples, checked against student and teachers."""
    limits = student.contexts
    train: list[Example] = []
    if spec.data.train is not None:
        path = await local_path(spec.data.train, coordinator, lease, "data.train")
        need = "completion" if spec.rollout.reads_completions else None
        train = encode(read_lines(path, "data.train", need=need), student.tokenizer, "data.train")
        validate.check_lengths(spec, train, "data.train", limits)
        validate.check_completions(train, "data.train", limits)
        if spec.reward is not None:
            validate.check_references(spec.reward.by, train, "data.train")
    check_teachers(spec, student, teachers, train)
    if spec.data.eval is None:
        return train, None
    path = await local_path(spec.data.eval, coordinator, lease, "data.eval")
    need = "completion" if spec.rollout.adaptive is not None else None
    held_out = encode(read_lines(path, "data.eval", need=need), student.tokenizer, "data.eval")
    validate.check_lengths(spec, held_out, "data.eval", limits)
    validate.check_completions(held_out, "data.eval", limits)
    validate.check_grading(spec, held_out)
    return train, held_out


def check_teachers(spec: RunSpec, student: Student, teachers: Teachers, train: list[Example]) -> None:
    """Every teacher can read the student's tokens and the lines that it is asked about, and every line has one.

    Raises:
        InvalidInput: as the checks say.
    """
    if teachers.all and train:
        validate.check_routes(spec, train)
    for teacher in teachers.everyone:
        validate.check_repeats(spec, teacher.view.info)
        if not teacher.reads_tokens(spec):
            continue
        validate.check_tokenizer(student.tokenizer, teacher.view.info)
        limits = {f"teacher {teacher.name!r}": teacher.max_length}
        own = [example for example in train if teachers.may_ask(teacher, example.tag)]
        if own:
            validate.check_lengths(spec, own, "data.train", limits)
            validate.check_completions(own, "data.train", limits)
