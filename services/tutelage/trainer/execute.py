"""One attempt at one run, from lease to exit code. The only place where a run's errors become its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Literal

import torch

from tutelage.trainer import keeping
from tutelage.trainer.build import build
from tutelage.trainer.crashes import crashing
from tutelage.trainer.exits import ExitCode, Fenced, StopRun, TeacherFailed, exhausted
from tutelage.trainer.loop import train
from tutelage.trainer.run import Run
from tutelage.trainer.session import Session
from tutelage.trainer.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, ProblemResponse, StaleEpoch, TutelageError
from tutelage_client.spec import parse_spec
from tutelage_client.tracing import TRACEPARENT, traceparent
from tutelage_client.wire import Outcome, RunError
from tutelage_client.worker import WorkerClient

log = logging.getLogger(__name__)


async def execute(settings: Settings, run_id: str) -> ExitCode:
    """Lease the run (or take over the lease of `settings.epoch`) and bring it to an end."""
    url, key = settings.coordinator, settings.coordinator_key()
    async with WorkerClient(url, key) as worker, CoordinatorClient(url, key) as coordinator:
        return await lead(worker, coordinator, settings, run_id)


async def lead(worker: WorkerClient, coordinator: CoordinatorClient, settings: Settings, run_id: str) -> ExitCode:
    """From the lease to the exit code; SIGTERM pauses the run."""
    TRACEPARENT.set(traceparent(run_id))
    try:
        lease = await worker.lease_run(run_id, settings.name, settings.epoch)
    except StaleEpoch:
        return ExitCode.FENCED
    except ProblemResponse as error:
        log.error("the run cannot be leased", extra={"run_id": run_id, "reason": error.detail})  # noqa: TRY400
        return ExitCode.USER_ERROR
    log.info("an attempt begins", extra={"run_id": run_id, "epoch": lease.epoch})
    session = Session(worker, lease)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, session.request, "pause")
    try:
        async with session.beating():
            return await attempt(session, coordinator, settings)
    except (Fenced, StaleEpoch) as error:
        log.warning("fenced", extra={"run_id": run_id, "epoch": lease.epoch, "reason": str(error)})
        return ExitCode.FENCED
    except Exception as error:  # the outer edge of the process: whatever it was, the run should say it
        log.exception("the run crashed", extra={"run_id": run_id, "epoch": lease.epoch})
        await _crashed(session, error)
        return ExitCode.CRASHED


async def attempt(session: Session, coordinator: CoordinatorClient, settings: Settings) -> ExitCode:
    """Execute and report the outcome; whatever is not foreseen here is a crash that the parent reports."""
    run: Run | None = None
    queue = settings.open_queue()
    try:
        await session.enter("validating")
        spec = parse_spec(session.lease.spec)
        run = await build(session, spec, coordinator, queue, settings.teacher_key())
        if settings.crash_at is not None:
            run.passing = crashing(settings.crash_at, session.epoch)
        await session.enter("running")
        async with run.teachers, run.pipeline or contextlib.nullcontext():
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
        return await _stopped(session, run, error.wanted)
    finally:
        await queue.close()
    return ExitCode.DONE


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
