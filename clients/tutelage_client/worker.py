"""What a trainer asks of the coordinator: leases, heartbeats, reports and the outcome.

Every write carries the epoch of its lease and may be repeated; once a newer attempt owns the run, or the lease has run
out, it raises StaleEpoch and the writer must stop.
"""

from __future__ import annotations

from typing import Any

import httpx2
from pydantic import BaseModel

from tutelage_client.client import ServiceClient
from tutelage_client.http import RetryPolicy
from tutelage_client.wire import (
    CheckpointCommit,
    EventReport,
    Heartbeat,
    HeartbeatReply,
    Lease,
    LeaseRequest,
    Outcome,
    Page,
    Rollout,
    StepReport,
    TeacherView,
)
from tutelage_client.wire.message import read_reply


class WorkerClient(ServiceClient):
    """The coordinator at `url` as a worker sees it. Its key leases runs; what it writes goes with the lease's token."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        super().__init__(url, key, transport, retry)
        self._tokens: dict[str, str] = {}

    async def lease(self, worker: str, wait_s: float = 0.0) -> Lease | None:
        """The oldest queued run, or None when there was none within `wait_s` (at most 30)."""
        body = LeaseRequest(worker=worker, wait_s=wait_s).model_dump_json().encode()
        answer = await self._http.send("POST", "/internal/v1/leases", body, headers=JSON, repeatable=True)
        return self._held(read_reply(Lease, answer.content)) if answer.content else None

    async def lease_run(self, run_id: str, worker: str, epoch: int | None = None) -> Lease:
        """Claim one given queued run, or with `epoch` take over the lease that was granted with it.

        Raises:
            ProblemResponse: `run_not_queued`, `run_not_found`.
            StaleEpoch: that lease is no longer the current one.
        """
        body = LeaseRequest(worker=worker, epoch=epoch)
        path = f"/internal/v1/runs/{run_id}/lease"
        return self._held(await self._http.request_json("POST", path, Lease, body, repeatable=True))

    def _held(self, lease: Lease) -> Lease:
        self._tokens[lease.run_id] = lease.token
        return lease

    def _bearer(self, run_id: str) -> dict[str, str]:
        """As whom it writes to a run; of one that it leased elsewhere it only has its key."""
        token = self._tokens.get(run_id)
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    async def heartbeat(self, run_id: str, heartbeat: Heartbeat) -> HeartbeatReply:
        return await self._write(run_id, "heartbeat", HeartbeatReply, heartbeat)

    async def report_step(self, run_id: str, report: StepReport) -> None:
        await self._write(run_id, "steps", type(None), report)

    async def report_event(self, run_id: str, report: EventReport) -> None:
        await self._write(run_id, "events", type(None), report)

    async def commit_checkpoint(self, run_id: str, commit: CheckpointCommit) -> None:
        """Only what was committed is resumed from."""
        await self._write(run_id, "checkpoints", type(None), commit)

    async def report_outcome(self, run_id: str, outcome: Outcome) -> None:
        """End this attempt and give the lease back."""
        await self._write(run_id, "outcome", type(None), outcome)

    async def _write(self, run_id: str, what: str, reply: type[Any], body: BaseModel) -> Any:
        path, headers = f"/internal/v1/runs/{run_id}/{what}", self._bearer(run_id)
        return await self._http.request_json("POST", path, reply, body, headers=headers, repeatable=True)

    async def pushed(self, run_id: str, after: int = 0, limit: int = 256) -> Page[Rollout]:
        """Rollouts pushed to the run after the cursor; `int(page.next)` is the cursor for what comes later."""
        path, params = f"/internal/v1/runs/{run_id}/pushed", {"after": after, "limit": limit}
        return await self._http.request_json("GET", path, Page[Rollout], params=params, headers=self._bearer(run_id))

    async def teachers(self) -> list[TeacherView]:
        """Every registered teacher, by name."""
        page = await self._http.request_json("GET", "/v1/teachers", Page[TeacherView], params={"limit": 200})
        return page.data


JSON = {"Content-Type": "application/json"}
