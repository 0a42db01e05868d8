"""One attempt at a run, as the coordinator sees it: lease, heartbeats, reports. Every write carries the epoch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, TypeVar

from tutelage.trainer.exits import Fenced, StopRun
from tutelage_client.errors import ServiceUnreachable, StaleEpoch
from tutelage_client.wire import (
    CheckpointCommit,
    CheckpointView,
    EventReport,
    Heartbeat,
    Inspection,
    Lease,
    Outcome,
    Provenance,
    Rollout,
    RolloutLimits,
    StepReport,
)
from tutelage_client.worker import WorkerClient

log = logging.getLogger(__name__)
Result = TypeVar("Result")
CHECK_S = 0.5


class Session:
    """The lease of one run. Heartbeats run beside the work; `check()` raises when the work must end."""

    def __init__(self, worker: WorkerClient, lease: Lease) -> None:
        self.worker = worker
        self.lease = lease
        self.conditions: dict[str, bool] = {"teacher_available": True, "queue_available": True}
        self.limits: RolloutLimits | None = None
        self.teachers: dict[str, Provenance] | None = None
        self._status: Literal["validating", "running", "finalizing"] = "validating"
        self._desired = "run"
        self._fenced: str | None = None
        self._renewed = time.monotonic()

    @property
    def run_id(self) -> str:
        return self.lease.run_id

    @property
    def epoch(self) -> int:
        return self.lease.epoch

    def check(self) -> None:
        """Between two pieces of work.

        Raises:
            Fenced: the lease is lost, or was not renewed for two thirds of its length.
            StopRun: the run's owner wants to pause or cancel.
        """
        self._check_lease()
        if self._desired != "run":
            raise StopRun(self._desired)

    def _check_lease(self) -> None:
        """Raises Fenced where the lease is lost, or must be taken for lost."""
        age_s = time.monotonic() - self._renewed
        if self._fenced is None and age_s > self.lease.expires_in_s * 2 / 3:
            self._fenced = f"no heartbeat was answered for {age_s:.0f} s"
        if self._fenced:
            raise Fenced(self._fenced)

    async def while_wanted(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which is cancelled when the run must end, however long it would have waited.

        Raises:
            Fenced, StopRun: as `check`.
        """
        return await _while(self.check, work)

    async def _written(self, write: Coroutine[Any, Any, None]) -> None:
        """Hand a report over, however often that must be repeated; Fenced as soon as the lease may be another's."""
        await _while(self._check_lease, write)

    def request(self, wanted: Literal["pause"]) -> None:
        """Stop as if the coordinator had asked: used when this process is told to go."""
        self._desired = wanted

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Heartbeats for as long as the block runs."""
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def enter(self, status: Literal["validating", "running", "finalizing"]) -> None:
        self._status = status
        await self._heartbeat()

    async def event(
        self,
        kind: Literal["progress", "checkpoint", "rollout", "teacher", "log"],
        message: str,
        level: Literal["info", "warning", "error"] = "info",
        **data: Any,
    ) -> None:
        report = EventReport(epoch=self.epoch, type=kind, level=level, message=message, data=data)
        await self._written(self.worker.report_event(self.run_id, report))

    async def step(
        self,
        step: int,
        metrics: dict[str, float | None],
        student_tokens: int,
        teacher_tokens: int,
        rollouts: Sequence[Rollout],
        held_out: Sequence[Rollout],
        inspections: Mapping[str, Inspection],
    ) -> None:
        report = StepReport(
            epoch=self.epoch,
            step=step,
            metrics=metrics,
            student_tokens=student_tokens,
            teacher_tokens=teacher_tokens,
            rollouts=list(rollouts),
            held_out=list(held_out),
            inspections=dict(inspections),
        )
        await self._written(self.worker.report_step(self.run_id, report))

    async def commit(self, checkpoint: CheckpointView, *, final: bool) -> None:
        commit = CheckpointCommit(
            epoch=self.epoch,
            step=checkpoint.step,
            path=checkpoint.path,
            weights_sha256=checkpoint.weights_sha256,
            manifest_sha256=checkpoint.manifest_sha256,
            bytes=checkpoint.bytes,
            seconds=checkpoint.seconds,
            final=final,
        )
        await self._written(self.worker.commit_checkpoint(self.run_id, commit))

    async def outcome(self, outcome: Outcome) -> None:
        await self.worker.report_outcome(self.run_id, outcome)

    async def _beat(self) -> None:
        while not self._fenced:
            await asyncio.sleep(self.lease.expires_in_s / 6)
            try:
                await self._heartbeat()
            except ServiceUnreachable as error:
                log.warning("heartbeat not answered", extra={"run_id": self.run_id, "reason": str(error)})

    async def _heartbeat(self) -> None:
        told = {"conditions": dict(self.conditions), "limits": self.limits, "teachers": self.teachers}
        beat = Heartbeat(epoch=self.epoch, status=self._status, **told)
        try:
            reply = await self.worker.heartbeat(self.run_id, beat)
        except StaleEpoch as error:
            self._fenced = str(error)
            return
        self._renewed = time.monotonic()
        if self._desired == "run":
            self._desired = reply.desired


async def _while(check: Callable[[], None], work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`; it is cancelled as soon as `check` raises."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            check()
            await asyncio.wait([task], timeout=CHECK_S)
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
