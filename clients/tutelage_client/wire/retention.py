"""What a project no longer keeps of its ended runs."""

from __future__ import annotations

from pydantic import Field

from tutelage_client.wire.message import Message

LONGEST_DAYS = 36_600


class ForgetRequest(Message):
    """Whose rollouts are no longer kept."""

    days: float = Field(gt=0, le=LONGEST_DAYS, description="of runs that ended more than so many days ago")
    files: bool = Field(
        default=False, description="also their checkpoints and unpacked inputs, so that none can be forked; models stay"
    )
    audit_days: float | None = Field(
        default=None, ge=1, le=LONGEST_DAYS, description="also entries of the audit that are older; null: none"
    )


class Forgotten(Message):
    """What was deleted: a part of what there is, so ask again until there is none."""

    shown: int = Field(description="rollouts that a trainer chose to show, with what was known of their tokens")
    pushed: int = Field(description="rollouts that were written elsewhere and pushed to a run")
    entries: int = Field(default=0, description="of the audit, in every project")
    runs: int = Field(default=0, description="whose checkpoints and unpacked inputs went")

    @property
    def any(self) -> bool:
        return self.shown + self.pushed + self.entries + self.runs > 0
