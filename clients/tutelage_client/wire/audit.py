"""What the audit of a coordinator tells: who did what, and who was refused."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from tutelage_client.wire.message import Message


class Action(StrEnum):
    """What was done. REFUSED: nothing, as who asked may not; the route says what was asked for."""

    RUN_SUBMIT = "run.submit"
    RUN_CHANGE = "run.change"
    RUN_CANCEL = "run.cancel"
    RUN_PAUSE = "run.pause"
    RUN_RESUME = "run.resume"
    RUN_FORK = "run.fork"
    RUN_PUSH = "run.push"
    RUN_LEASE = "run.lease"
    RUN_END = "run.end"
    LETTER_REPLAY = "letter.replay"
    LETTER_DISCARD = "letter.discard"
    ROLLOUTS_FORGET = "rollouts.forget"
    FILE_UPLOAD = "file.upload"
    FILE_DELETE = "file.delete"
    TEACHER_REGISTER = "teacher.register"
    TEACHER_REMOVE = "teacher.remove"
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"
    REFUSED = "refused"


class AuditEntry(Message):
    """One line of the audit."""

    id: int = Field(description="counts up; a gap is what was taken away, or never came to be")
    created_at: datetime = Field(description="when")
    actor: str = Field(
        description="who: a key's id, `file:ROLE` of a key in a file, `RUN@EPOCH` of the holder of a lease, `anyone` "
        "where no key is asked for, `nobody` where it is not known"
    )
    owner: str | None = Field(description="the name of the key, where it has one")
    project: str | None = Field(description="that of who asked; null where it is not known")
    action: Action = Field(description="what")
    route: str = Field(description="by which route, as its method and template")
    target: str | None = Field(
        description="the id of what it was done to, or of what it made; of a dead letter RUN/JOB; where many "
        "runs lost their rollouts, their project; null: none was named"
    )
    status: int = Field(description="of the answer")
    trace: str | None = Field(description="id of the trace that the request named in `traceparent`; null: none")
