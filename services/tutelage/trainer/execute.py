"""One attempt at one run, from lease to exit code. The only place where a run's errors become its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Literal

import torch

from tutelage.about import tell_about
from tutelage.addresses import Allowed
from tutelage.tracing import span, started
from tutelage.trainer import keeping
from tutelage.trainer.build import build
from tutelage.trainer.crashes import crashing
from tutelage.trainer.exits import ExitCode, Fenced, StopRun, TeacherFailed, exhausted
from tutelage.trainer.loop import train
from tutelage.trainer.place import Place
from tutelage.trainer.run import Run
from tutelage.trainer.session import Session
from tutelage.trainer.settings import Settings
from tutelage.trainer.teachers import Doors
from tutelage.trainer.trackers import following
from tutelage.trainer.world import ALONE, World
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, ProblemResponse, StaleEpoch, TutelageError
from tutelage_client.spec import parse_spec
from tutelage_client.tracing import CONTEXT, NOWHERE, TraceContext, traceparent
from tutelage_client.wire import Outcome, RunError, RunStatus
from tutelage_client.worker import WorkerClient

log = logging.getLogger(__name__)
FREE = (RunStatus.QUEUED, RunStatus.PAUSED)
LEASE_POLL_S = 0.5


def take_part(settings: Settings, run_id: str) -> int:
    """Execute the run; under torchrun as rank 0, for which the other ranks do what it says. The exit status."""
    place = Place.found()
    if place.size == 1:
        return asyncio.run(execute(settings, run_id))
    from tutelage.trainer.crew import Crew  # here, because these cost every start two seconds
    from tutelage.trainer.member import serve
    from tutelage.trainer.ranks import Ranks

    ranks = Ranks.joined(place)
    return serve(ranks) if place.rank else asyncio.run(execute(settings, run_id, Crew(ranks)))


async def execute(settings: Settings, run_id: str, world: World = ALONE) -> int:
    """Lease the run (or take over the lease of `settings.epoch`) and bring it to an end."""
    url, key = settings.coordinator, settings.coordinator_key()
    async with WorkerClient(url, key) as worker, CoordinatorClient(url, key) as coordinator:
        if world.restarted:
            await _lapsed(coordinator, run_id)
        code = await lead(worker, coordinator, settings, run_id, world)
    log.info("an attempt ended", extra={"run_id": run_id, "exit_code": code})
    return await asyncio.to_thread(world.dismiss, code)


async def _lapsed(coordinator: CoordinatorClient, run_id: str) -> None:
    """Wait until the attempt that was here before has lost its lease, or another one begins."""
    before = await coordinator.run(run_id)
    found = before
    while found.epoch == before.epoch and not (found.status.final or found.status in FREE):
        await asyncio.sleep(LEASE_POLL_S)
        found = await coordinator.run(run_id)


async def lead(
    worker: WorkerClient, coordinator: CoordinatorClient, settings: Settings, run_id: str, world: World = ALONE
) -> ExitCode:
    """From the lease to the exit code; SIGTERM pauses the run."""
    CONTEXT.set(TraceContext(traceparent(run_id)))
    tell_about(run_id=run_id)
    try:
        epoch = None if world.restarted else settings.epoch
        lease = await worker.lease_run(run_id, settings.name, epoch)
    except StaleEpoch:
        return ExitCode.FENCED
    except ProblemResponse as error:
        log.error("the run cannot be leased", extra={"reason": error.detail})  # noqa: TRY400
        return ExitCode.USER_ERROR
    tell_about(epoch=lease.epoch)
    _begin(run_id, lease.epoch)
    log.info("an attempt begins")
    session = Session(worker, lease)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, session.request, "pause")
    try:
        async with session.beating():
            return await attempt(session, coordinator, settings, world)
    except (Fenced, StaleEpoch) as error:
        log.warning("fenced", extra={"reason": str(error)})
        return ExitCode.FENCED
    except Exception as error:  # the outer edge of the process: whatever it was, the run should say it
        log.exception("the run crashed")
        await _crashed(session, error)
        return ExitCode.CRASHED


async def attempt(
    session: Session, coordinator: CoordinatorClient, settings: Settings, world: World = ALONE
) -> ExitCode:
    """Execute and report the outcome; whatever is not foreseen here is a crash that the parent reports."""
    run: Run | None = None
    queue = settings.open_queue()
    try:
        with span("prepare", {}):
            await session.enter("validating")
            spec = parse_spec(session.lease.spec)
            doors = Doors(Allowed(settings.teacher_addresses), settings.teacher_key())
            run = await build(session, spec, coordinator, queue, doors, world)
        run.trackers = following(session, run.student.step, settings.tracker)
        if settings.crash_at is not None:
            run.passing = crashing(settings.crash_at, session.epoch)
        await session.enter("running")
        asking, writing = run.pipeline or contextlib.nullcontext(), run.samplers or contextlib.nullcontext()
        async with run.trackers, run.teachers, asking, writing:
            await train(run)
        await session.enter("finalizing")
        model = await keeping.export(run)
        await session.outcome(Outcome(epoch=session.epoch, result="succeeded", model_path=str(model)))
    except InvalidInput as error:
        return await _failed(session, run, "invalid_input", error.message, "user", ExitCode.USER_ERROR, error.field)
    except TeacherFailed as error:
        if run is not None:
            await keeping.commit(run)
        return await _failed(session, run, error.code, str(error), "teacher", ExitCode.TEACHER_LOST)
    except ArithmeticError as error:
        return await _failed(session, run, "diverged", str(error), "user", ExitCode.USER_ERROR)
    except StopRun as error:
        await asyncio.to_thread(world.confirm)
        return await _stopped(session, run, error.wanted)
    finally:
        await queue.close()
    return ExitCode.DONE


def _begin(run_id: str, epoch: int) -> None:
    """The span above all others of the attempt. It ends at once, so that it is there however the process ends."""
    begun = started("attempt", {}, parent=NOWHERE, own=TraceContext(traceparent(run_id, f"attempt/{epoch}")))
    begun.end()
    CONTEXT.set(begun.context)


async def _crashed(session: Session, error: Exception) -> None:
    """Say what happened, if anybody can still be told; without that the lease runs out by itself."""
    sentence = str(error).partition("\n")[0][:300]
    reason = f"{type(error).__name__}: {sentence}"
    told = RunError(code="crashed", message=reason, category="internal", retryable=True, attempt=session.epoch)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        told = exhausted(session.epoch, reason)
    with contextlib.suppress(TutelageError):
        await session.outcome(Outcome(epoch=session.epoch, result="crashed", error=told))


async def _failed(
    session: Session,
    run: Run | None,
    code: str,
    message: str,
    category: Literal["user", "teacher"],
    exit_code: ExitCode,
    field: str | None = None,
) -> ExitCode:
    step = run.student.step if run else 0
    error = RunError(
        code=code, message=message, category=category, field=field, retryable=False, attempt=session.epoch, step=step
    )
    await session.outcome(Outcome(epoch=session.epoch, result="failed", error=error))
    return exit_code


async def _stopped(session: Session, run: Run | None, wanted: str) -> ExitCode:
    """A cancelled run stops as it is; a paused one first saves where it stands."""
    if wanted == "cancel":
        await session.outcome(Outcome(epoch=session.epoch, result="cancelled"))
        return ExitCode.DONE
    if run is not None:
        await keeping.commit(run)  # where the disk refuses, the run goes on from the one before
    await session.outcome(Outcome(epoch=session.epoch, result="paused"))
    return ExitCode.DRAINED
