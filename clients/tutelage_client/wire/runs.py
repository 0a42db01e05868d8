"""Messages between a person, the coordinator and the workers: runs, leases, events, checkpoints, files, problems."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from tutelage_client.wire.changes import ForkPoint
from tutelage_client.wire.forms import DOOR, SHORT_NAME
from tutelage_client.wire.inspecting import Inspection
from tutelage_client.wire.message import Message
from tutelage_client.wire.rollouts import Rollout
from tutelage_client.wire.teachers import Provenance, TeacherInfo

Item = TypeVar("Item", bound=BaseModel)


class RunStatus(StrEnum):
    """Where a run is, `queued` first: waiting for a trainer. The last three are final."""

    QUEUED = "queued"
    STARTING = "starting"
    VALIDATING = "validating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RECOVERING = "recovering"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.CANCELLED)


Category = Literal["user", "data", "teacher", "infra", "internal"]


class RunError(Message):
    """Why a run failed, for its owner: one sentence, and whose it is to mend."""

    code: str = Field(description="stable, see the page of errors")
    message: str = Field(description="one sentence for a person")
    category: Category = Field(description="whose it is to mend")
    field: str | None = Field(default=None, description="dotted path into the spec, where one is at fault")
    retryable: bool = Field(default=False, description="another attempt may go well")
    attempt: int = Field(default=0, description="the epoch that failed")
    step: int = Field(default=0, description="steps done by then")


class RunView(Message):
    """A run as its owner sees it."""

    id: str = Field(description="given by the coordinator")
    name: str = Field(description="the spec's, until it is changed")
    status: RunStatus = Field(description="where it is")
    status_reason: str | None = Field(default=None, description="why, where that is not plain")
    desired: Literal["run", "pause", "cancel"] = Field(default="run", description="what its owner asked for")
    step: int = Field(default=0, description="steps done")
    steps: int = Field(description="steps of the spec")
    epoch: int = Field(default=0, description="attempts so far; the fencing token of the present one")
    conditions: dict[str, bool] = Field(default={}, description="such as teacher_available")
    error: RunError | None = Field(default=None, description="why it failed")
    metrics: dict[str, float] = Field(default={}, description="the newest value of each")
    teacher_tokens: int = Field(default=0, description="computed or written by the teacher so far")
    student_tokens: int = Field(default=0, description="learned on so far")
    created_at: datetime = Field(description="submitted")
    updated_at: datetime = Field(description="last heard of")
    started_at: datetime | None = Field(default=None, description="first taken by a trainer")
    ended_at: datetime | None = Field(default=None, description="reached a final status")
    teachers: dict[str, Provenance] | None = Field(
        default=None, description="who each teacher is, as the trainer holds its answers to; null: not told yet"
    )
    forked_from: ForkPoint | None = Field(default=None, description="where it began, if at another run's checkpoint")
    labels: dict[str, str] = Field(default={}, description="its owner's words for it, by key")
    note: str | None = Field(default=None, description="its owner's remark")
    revision: int = Field(default=0, description="changes of name, labels and note so far; in quotes it is the ETag")
    spec: dict[str, Any] = Field(description="as it was resolved, defaults included")


class EventView(Message):
    """One line of a run's history; `id` counts up within the run and is the SSE id."""

    id: int = Field(description="counts up within the run")
    type: Literal["state", "progress", "metrics", "checkpoint", "rollout", "teacher", "log"] = Field(
        description="what it is about"
    )
    level: Literal["info", "warning", "error"] = Field(default="info", description="how bad it is")
    message: str = Field(description="one line for a person")
    data: dict[str, Any] = Field(default={}, description="of a state: from, to, epoch, reason; of metrics: the row")
    created_at: datetime = Field(description="when it was recorded")


class CheckpointView(Message):
    """A committed checkpoint."""

    step: int = Field(description="steps done")
    epoch: int = Field(description="the attempt that wrote it; 0: the one that a fork began at")
    path: str = Field(description="a directory that trainer and coordinator share")
    weights_sha256: str = Field(description="over names and bytes of its weight files")
    manifest_sha256: str | None = Field(default=None, description="of manifest.json, which has that of every file")
    bytes: int | None = Field(default=None, description="of all its files; null: an older release wrote it")
    seconds: float | None = Field(
        default=None,
        description="that writing it took; null: an older release wrote it, or the run that this one forks",
    )
    created_at: datetime | None = Field(default=None, description="when it was committed")


class ListedCheckpoint(CheckpointView):
    """One of a run's."""

    kept: bool | None = Field(
        default=None, description="whether its files are there, as those of spec.checkpoint.keep are: a fork needs them"
    )


class FileView(Message):
    """An uploaded file; its id is its content hash, so that a repeated upload is the same file."""

    id: str = Field(description="a spec names it as file:ID")
    sha256: str = Field(description="of the content")
    bytes: int = Field(description="its size")
    filename: str = Field(description="for people; the first upload's stays")
    created_at: datetime = Field(description="first uploaded")


class UploadView(Message):
    """How far the upload of a content has come."""

    sha256: str = Field(description="of the whole content")
    offset: int = Field(description="bytes that have arrived: the next part begins there")
    file: FileView | None = Field(default=None, description="what became of it; null until it is whole")


class TeacherView(Message):
    """A registered teacher."""

    name: str = Field(description="the name that runs use")
    url: str = Field(description="where its HTTP door is")
    info: TeacherInfo = Field(description="what it said of itself")
    seen_at: datetime = Field(description="when it last registered")
    available: bool = Field(description="heard of within 20 seconds")


class TeacherRegistration(Message):
    """What a teacher says of itself every few seconds; the last word under a name stands."""

    name: str = Field(pattern=SHORT_NAME, description="the name that runs use")
    url: str = Field(pattern=DOOR, description="where its HTTP door is")
    info: TeacherInfo = Field(description="what it is and can do")


class RolloutSample(Message):
    """A rollout that the trainer chose to show."""

    step: int = Field(description="the step that learned from it, or after which a held-out line was answered")
    epoch: int = Field(description="the attempt that reported it")
    held_out: bool = Field(default=False, description="an answer to a line of `data.eval`, which nothing learns from")
    rollout: Rollout = Field(description="the text")


class RolloutView(RolloutSample):
    """The same with what student and teacher held of its tokens."""

    inspection: Inspection | None = Field(
        default=None, description="null: the step did not learn from it, or it is longer, or older, than what is kept"
    )


class Page(Message, Generic[Item]):
    """One page of a list; `next` is the cursor to ask for as `after`, absent on the last page."""

    data: list[Item]
    next: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is stable, `field` is a dotted path into the body that was sent."""

    type: str = Field(default="about:blank", description="as the RFC has it; `code` says more")
    title: str = Field(description="the phrase of the status")
    status: int = Field(description="of HTTP")
    code: str = Field(description="stable, see the page of errors")
    detail: str = Field(description="one sentence: what, where, the limit, the remedy")
    field: str | None = Field(default=None, description="dotted path of what is wrong")
    errors: list[dict[str, str]] = Field(default=[], description="field and message of everything that is wrong")
    allowed: list[str] | None = Field(
        default=None, description="where a run does not allow what is asked: what it does"
    )
