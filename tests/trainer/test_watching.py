"""What is asked for diagnostics alone: as much as the teacher can show, and nothing where the loss has it already."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.queue.memory import MemoryQueue
from tutelage.trainer.asking import Asker
from tutelage.trainer.watching import Watched, absent, watched
from tutelage_client.wire import Capabilities, Signal, decode_request

ABLE = Capabilities(signals=frozenset(Signal), max_top_k=256, max_length=99, vocabulary_size=64)
SAMPLED = {"kind": "divergence", "support": {"kind": "sampled"}}
ASKED_BESIDE = [
    (SAMPLED, {Signal.TOP_K, Signal.ENTROPY}, 8),
    ({"kind": "policy_gradient"}, {Signal.TOP_K, Signal.ENTROPY}, 8),
    ({"kind": "divergence", "support": {"kind": "student_top_k", "k": 3}}, {Signal.TOP_K, Signal.ENTROPY}, 8),
    ({"kind": "divergence", "support": {"kind": "teacher_top_k", "k": 3}}, {Signal.ENTROPY}, None),
    ({"kind": "divergence", "support": {"kind": "union_top_k", "k": 3}}, {Signal.ENTROPY}, None),
    ({"kind": "divergence"}, set(), None),
    ({"kind": "policy_gradient", "credit": {"kind": "control_variate"}}, set(), None),
]


@pytest.mark.parametrize(("objective", "signals", "k"), ASKED_BESIDE)
async def test_a_question_asks_beside_what_the_loss_does_not(
    objective: dict[str, Any], signals: set[Signal], k: int | None, make_spec: Any, random_rollouts: Any
) -> None:
    spec = make_spec(objective)
    assert watched(spec, ABLE) == Watched(frozenset(signals), k)
    assert absent(spec, "toy", ABLE) is None
    candidates = (
        (lambda rollout: rollout.completion_ids[:, None])
        if objective.get("support", {}).get("kind") in ("student_top_k", "union_top_k")
        else None
    )
    asker = Asker(MemoryQueue(), "run-1", spec, candidates, watched={"toy": watched(spec, ABLE)})
    request = decode_request((await asker.question(random_rollouts(1)[0])).job.payload)
    assert signals <= request.signals
    assert (Signal.TOP_K in request.signals) == (request.top_k is not None)
    assert request.top_k == k or signals != {Signal.TOP_K, Signal.ENTROPY}


def test_with_0_nothing_is_asked_beside(make_spec: Any) -> None:
    spec = make_spec(SAMPLED, diagnostics={"top_k": 0})
    assert watched(spec, ABLE) == Watched()
    assert absent(spec, "toy", ABLE) is None


@pytest.mark.parametrize(
    ("lacks", "most", "seen", "said"),
    [
        ({"top_k"}, 256, Watched(frozenset({Signal.ENTROPY})), "top_k_overlap and the masses"),
        ({"entropy"}, 256, Watched(frozenset({Signal.TOP_K}), 8), "teacher_entropy"),
        ({"entropy"}, 5, Watched(frozenset({Signal.TOP_K}), 5), "over 5 tokens in place of 8"),
        ({"entropy"}, 0, Watched(), "does not return top_k"),
    ],
)
def test_what_a_teacher_cannot_show_is_said_and_not_asked(
    lacks: set[str], most: int, seen: Watched, said: str, make_spec: Any
) -> None:
    able = ABLE.model_copy(update={"signals": frozenset(Signal) - {Signal(name) for name in lacks}, "max_top_k": most})
    spec = make_spec(SAMPLED)
    assert watched(spec, able) == seen
    sentence = absent(spec, "toy", able)
    assert sentence is not None
    assert sentence.startswith("of teacher 'toy'")
    assert said in sentence
