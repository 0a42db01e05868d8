"""What a run has used and where its cursors stand; saved with every checkpoint, so that totals survive a crash."""

from __future__ import annotations

from dataclasses import dataclass, field

from tutelage.core.clock import Clock
from tutelage_client.wire import Usage


@dataclass
class Ledger:
    """Totals since the run began. pushed_after: cursor into the rollouts that others pushed; clock: of the target."""

    student_tokens: int = 0
    teacher_tokens: int = 0
    dropped_rollouts: int = 0
    unrewarded_rollouts: int = 0
    pushed_after: int = 0
    clock: Clock = field(default_factory=Clock)

    def charge(self, usage: Usage) -> None:
        """Teacher tokens are forward plus generated tokens; what came from a cache cost nothing."""
        self.teacher_tokens += usage.forward_tokens + usage.generated_tokens
