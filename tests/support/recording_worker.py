"""The coordinator's end of a trainer's session, in process: it grants, listens, and says what is wanted."""

from __future__ import annotations

from typing import Any, Literal

from tutelage_client.wire import (
    CheckpointCommit,
    CheckpointView,
    EventReport,
    Heartbeat,
    HeartbeatReply,
    Lease,
    Outcome,
    Page,
    Rollout,
    StepReport,
)


class RecordingWorker:
    """Stands in for `WorkerClient`; `desired` is what the next heartbeat is answered with, `refusal` is raised."""

    def __init__(self, lease: Lease | None = None) -> None:
        self.granted = lease
        self.desired: Literal["run", "pause", "cancel"] = "run"
        self.refusal: Exception | None = None
        self.statuses: list[str] = []
        self.steps: list[StepReport] = []
        self.events: list[str] = []
        self.commits: list[CheckpointCommit] = []
        self.outcomes: list[Outcome] = []

    async def lease_run(self, run_id: str, worker: str, epoch: int | None = None) -> Lease:
        if self.refusal is not None:
            raise self.refusal
        assert self.granted is not None
        return self.granted

    async def heartbeat(self, run_id: str, heartbeat: Heartbeat) -> HeartbeatReply:
        self.statuses.append(heartbeat.status)
        return HeartbeatReply(desired=self.desired, expires_in_s=60.0)

    async def report_step(self, run_id: str, report: StepReport) -> None:
        self.steps.append(report)

    async def report_event(self, run_id: str, report: EventReport) -> None:
        self.events.append(report.message)

    async def commit_checkpoint(self, run_id: str, commit: CheckpointCommit) -> None:
        self.commits.append(commit)

    async def report_outcome(self, run_id: str, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    async def pushed(self, run_id: str, *, after: int, limit: int) -> Page[Rollout]:
        raise AssertionError("nothing is pushed to this run")

    @property
    def newest(self) -> CheckpointView | None:
        """What a next attempt's lease would carry."""
        if not self.commits:
            return None
        return CheckpointView(**self.commits[-1].model_dump(exclude={"final"}))


def lease(spec: dict[str, Any], artefacts: str, **fields: Any) -> Lease:
    """The lease of `run-1`, long enough for a test."""
    return Lease.model_validate(
        {"run_id": "run-1", "epoch": 1, "expires_in_s": 60.0, "spec": spec, "artefacts": artefacts, "token": "t"}
        | {"teachers": {}}
        | fields
    )
