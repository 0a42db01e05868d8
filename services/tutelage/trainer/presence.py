"""Which teachers are heard of, and which are lost.

Time is what the trainer spent reading the queue's answers. While the queue cannot be read it stands still: then nobody
is silent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from tutelage.trainer.marking import Question


@dataclass
class Presence:
    """Of each teacher that owes an answer, how long nothing came from it.

    heard_s, asked_s: when something last came from it, and when its questions were last put
    lost: who owed for too long; by their names the question that stays with them, whose answer shows that they are back
    back: who was lost and is heard of again, and after how many seconds, until somebody looks
    """

    now_s: float = 0.0
    heard_s: dict[str, float] = field(default_factory=dict)
    asked_s: dict[str, float] = field(default_factory=dict)
    lost: dict[str, Question] = field(default_factory=dict)
    back: dict[str, float] = field(default_factory=dict)

    def listen(self, seconds: float) -> None:
        """So long the answers were read."""
        self.now_s += seconds

    def owe(self, teachers: Collection[str]) -> None:
        """These owe an answer now, beside those that are lost; of the others silence means nothing."""
        for gone in self.heard_s.keys() - set(teachers) - self.lost.keys():
            del self.heard_s[gone], self.asked_s[gone]
        for teacher in teachers:
            self.heard_s.setdefault(teacher, self.now_s)
            self.asked_s.setdefault(teacher, self.now_s)

    def hear(self, teacher: str) -> None:
        """Something came from it."""
        if self.lost.pop(teacher, None) is not None:
            self.back[teacher] = self.silence_s(teacher)
        self.heard_s[teacher] = self.asked_s[teacher] = self.now_s

    def silence_s(self, teacher: str) -> float:
        """0 where it owes nothing."""
        return self.now_s - self.heard_s.get(teacher, self.now_s)

    def lose(self, teacher: str, question: Question) -> None:
        """It counts as lost until something comes from it. question: stays with it"""
        self.lost[teacher] = question

    def of_lost(self, job_id: str) -> str | None:
        """The lost teacher that this job stayed with."""
        return next((name for name, question in self.lost.items() if question.job.id == job_id), None)
