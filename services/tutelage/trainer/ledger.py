"""What a run has used and where its cursors stand; saved with every checkpoint, so that totals survive a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from tutelage.core.clock import Clock
from tutelage.core.skew import GAPS
from tutelage.trainer.fates import Fates
from tutelage.trainer.replay import Share
from tutelage_client.wire import Usage


@dataclass
class Ledger:
    """Totals since the run began.

    tokens_of: of each teacher, what it has of teacher_tokens; usage_of: the same as the counts of a Usage
    pushed_after: cursor into the rollouts that others pushed, behind the last that was learned from
    first_gaps: what the first step told of the gaps of texts, for a skew of each
    clock: of the target; share: of the student's text
    rollouts: their fates
    """

    student_tokens: int = 0
    teacher_tokens: int = 0
    tokens_of: dict[str, int] = field(default_factory=dict)
    usage_of: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped_rollouts: int = 0
    unrewarded_rollouts: int = 0
    pushed_after: int = 0
    first_gaps: dict[str, float] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    share: Share = field(default_factory=Share)
    rollouts: Fates = field(default_factory=Fates)

    @classmethod
    def restored(cls, saved: dict[str, Any]) -> Self:
        """From what `dataclasses.asdict` made of one."""
        parts: dict[str, Any] = {"clock": Clock(**saved["clock"]), "share": Share(**saved["share"])}
        parts |= {"rollouts": Fates(**saved.get("rollouts", {}))}  # a checkpoint of an older release has none
        return cls(**(saved | parts))

    def submit(self, rollouts: Sized) -> None:
        """They are written."""
        self.rollouts = replace(self.rollouts, submitted=self.rollouts.submitted + len(rollouts))

    def drop(self, rollouts: int) -> None:
        """So many that are under way will not be learned from."""
        self.rollouts = replace(self.rollouts, dropped=self.rollouts.dropped + rollouts)

    def at_rest(self, kept: int) -> dict[str, Any]:
        """What a checkpoint holds of it: of what is under way it keeps so many rollouts, the rest is written again."""
        return asdict(replace(self, rollouts=self.rollouts.holding(kept)))

    def keep_first(self, metrics: Mapping[str, float | None]) -> None:
        """The gaps of texts of the first step that tells them stand for the whole run."""
        found = {name: gap for name in GAPS.values() if (gap := metrics.get(name)) is not None}
        self.first_gaps = found | self.first_gaps

    def charge(self, teacher: str, usage: Usage) -> None:
        """Teacher tokens are forward plus generated tokens; what came from a cache cost nothing."""
        cost = usage.forward_tokens + usage.generated_tokens
        self.teacher_tokens += cost
        self.tokens_of[teacher] = self.tokens_of.get(teacher, 0) + cost
        self.usage_of[teacher] = (self.usage(teacher) + usage).model_dump()

    def usage(self, teacher: str) -> Usage:
        """All that this teacher did for the run."""
        return Usage.model_validate(self.usage_of.get(teacher, {}))
