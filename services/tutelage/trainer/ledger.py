"""What a run has used and where its cursors stand; saved with every checkpoint, so that totals survive a crash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

from tutelage.core.clock import Clock
from tutelage.trainer.replay import Share
from tutelage_client.wire import Usage


@dataclass
class Ledger:
    """Totals since the run began.

    tokens_of: of each teacher, what it has of teacher_tokens
    pushed_after: cursor into the rollouts that others pushed, behind the last that was learned from
    clock: of the target; share: of the student's text
    """

    student_tokens: int = 0
    teacher_tokens: int = 0
    tokens_of: dict[str, int] = field(default_factory=dict)
    dropped_rollouts: int = 0
    unrewarded_rollouts: int = 0
    pushed_after: int = 0
    clock: Clock = field(default_factory=Clock)
    share: Share = field(default_factory=Share)

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Self:
        """From what `dataclasses.asdict` made of one."""
        return cls(**(saved | {"clock": Clock(**saved["clock"]), "share": Share(**saved["share"])}))

    def charge(self, teacher: str, usage: Usage) -> None:
        """Teacher tokens are forward plus generated tokens; what came from a cache cost nothing."""
        cost = usage.forward_tokens + usage.generated_tokens
        self.teacher_tokens += cost
        self.tokens_of[teacher] = self.tokens_of.get(teacher, 0) + cost
