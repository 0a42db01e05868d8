"""What becomes of every rollout: learned from, or left out for a reason that is counted, or still under way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from tutelage.trainer.collate import learnable
from tutelage.trainer.marking import Scored
from tutelage.trainer.writing import lag
from tutelage_client.spec import TeacherRef, teacher_for


@dataclass(frozen=True, slots=True)
class Fates:
    """Counts since the run began: submitted = trained + stale + dead_lettered + skipped + dropped + those under way.

    stale: too old to be learned from; dead_lettered: a teacher gave up on them; skipped: their teacher was lost
    dropped: left out for another reason
    """

    submitted: int = 0
    trained: int = 0
    stale: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    dropped: int = 0

    @property
    def queued(self) -> int:
        """What must be under way."""
        return self.submitted - self.trained - self.stale - self.dead_lettered - self.skipped - self.dropped

    def after(self, ended: Ended) -> Fates:
        """Once a step is done."""
        why = Counter(each.left_out for each in ended.left_out)
        return Fates(
            self.submitted,
            self.trained + len(ended.trained),
            self.stale + len(ended.stale),
            self.dead_lettered + why["dead_lettered"],
            self.skipped + why["skipped"],
            self.dropped + why[None],
        )

    def holding(self, queued: int) -> Fates:
        """With so many under way: the others are as if they had never been written."""
        return replace(self, submitted=self.submitted - self.queued + queued)


@dataclass(frozen=True, slots=True)
class Ended:
    """The rollouts of one step by their fate."""

    trained: list[Scored]
    left_out: list[Scored]
    stale: list[Scored]

    @classmethod
    def of(cls, scored: Sequence[Scored], stale: Sequence[Scored], *, asks_teacher: bool, in_pairs: bool) -> Self:
        units = learnable(scored, asks_teacher=asks_teacher, in_pairs=in_pairs)
        trained = {each.rollout.id for unit in units for each in unit}
        return cls(
            [each for each in scored if each.rollout.id in trained],
            [each for each in scored if each.rollout.id not in trained],
            list(stale),
        )


def by_age(scored: Sequence[Scored], version: int, oldest: int | None) -> tuple[list[Scored], list[Scored]]:
    """Those that a student of this version may learn from, and the stale ones. oldest: versions behind, at most"""
    old = [oldest is not None and lag(each.rollout, version) > oldest for each in scored]
    fresh = [each for each, is_old in zip(scored, old, strict=True) if not is_old]
    return fresh, [each for each, is_old in zip(scored, old, strict=True) if is_old]


def failed_over(scored: Sequence[Scored], teachers: Sequence[TeacherRef]) -> dict[str, float]:
    """How many rollouts of a step another than the teacher of their line marked, where one may stand in."""
    if all(teacher.failover_to is None for teacher in teachers):
        return {}
    marked = [each for each in scored if each.left_out is None]
    return {"failed_over": sum(each.teacher != teacher_for(teachers, each.rollout.tag).name for each in marked)}
