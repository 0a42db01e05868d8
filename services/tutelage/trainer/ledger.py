"""What a run has used and where its cursors stand; saved with every checkpoint, so that totals survive a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from tutelage.core.clock import Clock
from tutelage.core.skew import GAPS
from tutelage.trainer.replay import Share
from tutelage_client.wire import Usage


@dataclass
class Ledger:
    """Totals since the run began.

    tokens_of: of each teacher, what it has of teacher_tokens
    pushed_after: cursor into the rollouts that others pushed, behind the last that was learned from
    first_gaps: what the first step told of the gaps of texts, for a skew of each
    clock: of the target; share: of the student's text
    """

    student_tokens: int = 0
    teacher_tokens: int = 0
    tokens_of: dict[str, int] = field(default_factory=dict)
    dropped_rollouts: int = 0
    unrewarded_rollouts: int = 0
    pushed_after: int = 0
    first_gaps: dict[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    share: Share = field(default_factory=Share)

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Self:
        """From what `dataclasses.asdict` made of one."""
        return cls(**(saved | {"clock": Clock(**saved["clock"]), "share": Share(**saved["share"])}))

    def keep_first(self, metrics: Mapping[str, float | None]) -> None:
        """The gaps of texts of the first step that tells them stand for the whole run."""
        found = {name: gap for name in GAPS.values() if (gap := metrics.get(name)) is not None}
        self.first_gaps = found | self.first_gaps

    def charge(self, teacher: str, usage: Usage) -> None:
        """Teacher tokens are forward plus generated tokens; what came from a cache cost nothing."""
        cost = usage.forward_tokens + usage.generated_tokens
        self.teacher_tokens += cost
        self.tokens_of[teacher] = self.tokens_of.get(teacher, 0) + cost
