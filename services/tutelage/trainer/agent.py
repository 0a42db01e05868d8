"""The waiting half of a trainer: takes a lease, executes the run in a child process of its own, waits for the next.

A run that crashes, leaks or is killed takes its child with it and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from tutelage.trainer import memory
from tutelage.trainer.exits import ExitCode, exhausted
from tutelage.trainer.settings import Settings
from tutelage_client.errors import ServiceUnreachable, StaleEpoch
from tutelage_client.wire import Lease, Outcome, RunError
from tutelage_client.worker import WorkerClient

log = logging.getLogger(__name__)
LEASE_WAIT_S = 20.0


async def serve(settings: Settings) -> None:
    """Execute runs one after another until this process is told to stop."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with WorkerClient(settings.coordinator, settings.coordinator_key()) as worker:
        while not stopping.is_set():
            lease = await _first(stopping, _next_lease(worker, settings.name))
            if lease is not None:
                await execute(settings, worker, lease, stopping)


async def execute(settings: Settings, worker: WorkerClient, lease: Lease, stopping: asyncio.Event) -> None:
    """Run one lease in a child; report the end of a child that could not report it itself."""
    log.info("run leased", extra={"run_id": lease.run_id, "epoch": lease.epoch})
    own = settings.model_copy(update={"run": lease.run_id, "epoch": lease.epoch})
    killed_before = memory.kills()
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", "tutelage.trainer", *own.arguments())
    if await _first(stopping, child.wait()) is None and child.returncode is None:
        child.send_signal(signal.SIGTERM)
    code = await child.wait()
    log.info("run ended", extra={"run_id": lease.run_id, "epoch": lease.epoch, "exit_code": code})
    if code < 0 or code not in set(ExitCode) or code == ExitCode.CRASHED:
        error = _died(lease.epoch, code, out_of_memory=memory.kills() != killed_before)
        with contextlib.suppress(StaleEpoch, ServiceUnreachable):  # then the lease runs out by itself
            await worker.lease_run(lease.run_id, settings.name, lease.epoch)  # the token was the child's
            await worker.report_outcome(lease.run_id, Outcome(epoch=lease.epoch, result="crashed", error=error))


def _died(epoch: int, code: int, *, out_of_memory: bool) -> RunError | None:
    """What is known of the end of a child that said nothing itself; None of one that did."""
    if code == ExitCode.CRASHED:
        return None
    if code == -signal.SIGKILL and out_of_memory:
        return exhausted(epoch, "its process was killed because the memory of its control group was at its limit")
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    hint = "; if nobody killed it, the machine may be out of memory" if code == -signal.SIGKILL else ""
    message = f"the trainer's process {how}{hint}"
    return RunError(code="crashed", message=message, category="infra", retryable=True, attempt=epoch)


async def _next_lease(worker: WorkerClient, name: str) -> Lease | None:
    try:
        return await worker.lease(name, wait_s=LEASE_WAIT_S)
    except ServiceUnreachable as error:
        log.warning("coordinator not reachable, waiting", extra={"reason": str(error)})
        return None


async def _first(stopping: asyncio.Event, work):
    """The result of `work`, or None when the stop comes first; an unfinished `work` is cancelled."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        return None
    return task.result()
