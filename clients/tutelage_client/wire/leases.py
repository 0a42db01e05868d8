"""What workers and the coordinator tell each other of a run, under /internal/v1."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.wire.changes import ForkPoint
from tutelage_client.wire.inspecting import Inspection, check_faces
from tutelage_client.wire.message import Message
from tutelage_client.wire.pushing import RolloutLimits
from tutelage_client.wire.rollouts import Rollout
from tutelage_client.wire.runs import CheckpointView, RunError, TeacherView
from tutelage_client.wire.teachers import Provenance


class LeaseRequest(Message):
    """Ask for work. With `epoch`, take over the lease that was granted with it (a parent's, by its child)."""

    worker: str = Field(description="a name for logs")
    wait_s: float = Field(default=0.0, ge=0, le=30, description="how long to wait for a queued run")
    epoch: int | None = Field(default=None, ge=1, description="of the lease that is taken over")


class Places(Message):
    """Which paths the specs of runs may name."""

    own: str | None = Field(default=None, description="the coordinator's folder, in which none may be")
    shared: list[str] | None = Field(
        default=None, description="folders one of which it must be in; null: anywhere else"
    )


class Lease(Message):
    """The right to execute a run until `expires_in_s` from now, renewed by every heartbeat with this epoch."""

    run_id: str = Field(description="the run")
    epoch: int = Field(description="what every write carries")
    expires_in_s: float = Field(description="seconds without a heartbeat until the run is taken away")
    spec: dict[str, Any] = Field(description="as it was resolved")
    checkpoint: CheckpointView | None = Field(default=None, description="where to go on")
    older_checkpoints: list[CheckpointView] = Field(
        default=[], description="those of spec.checkpoint.keep that were committed before it, newest first"
    )
    forked_from: ForkPoint | None = Field(default=None, description="where the run began, if it is a fork")
    artefacts: str = Field(description="the run's directory")
    places: Places = Field(default=Places(), description="which paths the spec may name")
    token: str = Field(description="bearer key for the writes of this lease; a later lease of the run has another one")
    teachers: dict[str, TeacherView] = Field(description="those of the spec, by name")


class Heartbeat(Message):
    """What the trainer is doing; answered by what it should do."""

    epoch: int = Field(description="of the lease")
    status: Literal["validating", "running", "finalizing"] = Field(description="what it does")
    conditions: dict[str, bool] = Field(default={}, description="such as teacher_available")
    limits: RolloutLimits | None = Field(default=None, description="of pushed rollouts, once the student is loaded")
    teachers: dict[str, Provenance] | None = Field(
        default=None,
        description="who each teacher is, by name, once they are known to be those that the run began with",
    )


class HeartbeatReply(Message):
    """What the run's owner wants."""

    desired: Literal["run", "pause", "cancel"] = Field(description="what the trainer should do")
    expires_in_s: float = Field(description="seconds of the lease from now")


class StepReport(Message):
    """Metrics of one optimiser step. A step reported again by a newer epoch replaces the older row."""

    epoch: int = Field(description="of the lease")
    step: int = Field(ge=0, description="optimiser steps done, 0 before the first")
    metrics: dict[str, float | None] = Field(description="see the page of metrics")
    student_tokens: int = Field(ge=0, description="total since the run began")
    teacher_tokens: int = Field(ge=0, description="total since the run began")
    rollouts: list[Rollout] = Field(default=[], description="a few to look at")
    held_out: list[Rollout] = Field(
        default=[], description="answers to lines of `data.eval` to look at, the same lines in each report that has any"
    )
    inspections: dict[str, Inspection] = Field(
        default={}, description="by the id of one of all these, what student and teacher held of its tokens"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        shown = {rollout.id: rollout for rollout in [*self.rollouts, *self.held_out]}
        for name, inspection in self.inspections.items():
            if name not in shown:
                raise ValueError(f"inspections names {name!r}, which is none of the rollouts")
            check_faces(inspection, shown[name])
        return self


class EventReport(Message):
    """A line for a run's history."""

    epoch: int = Field(description="of the lease")
    type: Literal["progress", "checkpoint", "rollout", "teacher", "log"] = Field(description="what it is about")
    level: Literal["info", "warning", "error"] = Field(default="info", description="how bad it is")
    message: str = Field(description="one line for a person")
    data: dict[str, Any] = Field(default={}, description="the same for programs")


class CheckpointCommit(Message):
    """Make (run, epoch, step) the newest checkpoint; refused for an older epoch, or a step before the epoch's last one.

    The same step replaces it. What older epochs committed beyond it is forgotten: this attempt could not read it.
    """

    epoch: int = Field(description="of the lease")
    step: int = Field(ge=0, description="steps done")
    path: str = Field(description="its directory, below the run's artefacts")
    weights_sha256: str = Field(description="over names and bytes of its weight files")
    manifest_sha256: str | None = Field(default=None, description="of manifest.json, which has that of every file")
    bytes: int | None = Field(default=None, ge=0, description="of all its files")
    seconds: float | None = Field(default=None, ge=0, description="that writing it took")
    final: bool = Field(default=False, description="the run's last")


class Outcome(Message):
    """The end of one attempt. `succeeded` names the exported model's directory."""

    epoch: int = Field(description="of the lease")
    result: Literal["succeeded", "failed", "cancelled", "paused", "crashed"] = Field(description="how it ended")
    error: RunError | None = Field(default=None, description="why it failed or crashed")
    model_path: str | None = Field(default=None, description="below the run's artefacts, where it succeeded")
