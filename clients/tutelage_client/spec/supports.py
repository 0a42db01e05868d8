"""Over which tokens student and teacher are compared, and what that asks of the teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tutelage_client.spec.ranges import TopK
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.teachers import Signal

Rest = Literal["tail", "renormalise", "truncate"]
REST = (
    "tail: one bucket for all other tokens; renormalise: the set alone; truncate: the teacher is cut to the set, the "
    "student is not"
)


class FullSupport(Message):
    """The whole vocabulary, from the teacher's hidden states and its head: exact."""

    kind: Literal["full"] = "full"


class TeacherTopK(Message):
    """The teacher's k most probable tokens."""

    kind: Literal["teacher_top_k"] = "teacher_top_k"
    k: TopK = Field(default=16, description="how many tokens")
    rest: Rest = Field(default="tail", description=REST)


class StudentTopK(Message):
    """The student's k most probable tokens, scored by the teacher as candidates."""

    kind: Literal["student_top_k"] = "student_top_k"
    k: TopK = Field(default=16, description="how many tokens")
    rest: Rest = Field(default="tail", description=REST)


class UnionTopK(Message):
    """The most probable tokens of either: what the teacher favours and what the student does."""

    kind: Literal["union_top_k"] = "union_top_k"
    k: TopK = Field(default=16, description="how many tokens of each; those that both name count once")
    rest: Rest = Field(default="tail", description=REST)


class SampledSupport(Message):
    """Only the token that was written: unbiased gradients for reverse_kl (k2) and forward_kl (k3) on student text."""

    kind: Literal["sampled"] = "sampled"


Support = Annotated[FullSupport | TeacherTopK | StudentTopK | UnionTopK | SampledSupport, ByKind()]

# What a divergence over each support asks of the teacher.
SUPPORT_SIGNALS: dict[str, frozenset[Signal]] = {
    "full": frozenset({Signal.HIDDEN}),
    "teacher_top_k": frozenset({Signal.SAMPLED, Signal.TOP_K}),
    "student_top_k": frozenset({Signal.SAMPLED, Signal.CANDIDATES}),
    "union_top_k": frozenset({Signal.SAMPLED, Signal.TOP_K, Signal.CANDIDATES}),
    "sampled": frozenset({Signal.SAMPLED}),
}
