"""A sum of objectives: what it asks of the teacher, what it is refused for, and with which remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, parse_spec, required_signals, size_asked
from tutelage_client.wire.teachers import Signal

K1 = {"objective": {"kind": "policy_gradient"}}
RETURN = {"objective": {"kind": "policy_gradient", "credit": {"kind": "return_to_go"}}}
TOP = {"objective": {"kind": "divergence", "divergence": "forward_kl", "support": {"kind": "teacher_top_k", "k": 16}}}
SFT = {"objective": {"kind": "supervised"}}
FULL = {"objective": {"kind": "divergence"}}
PAIRS = {"objective": {"kind": "preference"}}
CLOCK = {"kind": "mixture", "final_weight": 1.0, "over_steps": 5, "adaptive": True}


def given(*terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    base = {"name": "run", "student": {"model": "student"}, "teachers": [{"name": "toy"}]}
    base |= {"data": {"train": "prompts.jsonl"}}
    return base | {"objective": {"kind": "sum", "terms": list(terms)}} | more


def parsed(*terms: dict[str, Any], **more: Any) -> RunSpec:
    return parse_spec(given(*terms, **more))


def test_the_teacher_is_asked_for_what_any_term_or_condition_needs() -> None:
    spec = parsed(K1, TOP | {"where": {"teacher_entropy_above": 1.0}})
    assert required_signals(spec) == {Signal.SAMPLED, Signal.TOP_K, Signal.ENTROPY}
    assert size_asked(spec.objective, Signal.TOP_K) == 16
    assert size_asked(spec.objective, Signal.CANDIDATES) is None
    conditioned = parsed(FULL, FULL | {"where": {"log_ratio_above": 0.0}})
    assert required_signals(conditioned) == {Signal.HIDDEN, Signal.SAMPLED}


def test_a_gate_beside_a_sum_asks_for_the_entropy() -> None:
    gate = [{"kind": "entropy_gate", "min": 0.5}]
    assert Signal.ENTROPY in required_signals(parsed(FULL, stabilizers=gate))


def test_a_reference_is_needed_where_a_term_goes_beyond_the_teacher() -> None:
    beyond = {"objective": {"kind": "policy_gradient", "target": {"kind": "extrapolation", "scale": 1.25}}}
    assert parsed(K1, beyond).needs_reference
    assert not parsed(K1).needs_reference


def test_a_term_that_is_restricted_to_one_text_learns_from_a_step_of_both() -> None:
    terms = (K1 | {"where": {"text": "student"}}, SFT | {"where": {"text": "other"}})
    for rollout in ({"source": "paired"}, {"source": "mix", "on_policy_fraction": 0.5}):
        spec = parsed(*terms, rollout=rollout)
        assert parse_spec(spec.model_dump(mode="json")) == spec


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (given(), "objective.terms", "give at least one term"),
    (given({"objective": {"kind": "sum", "terms": [K1]}}), "objective.terms.0.objective.kind", "known are divergence"),
    (given({"objective": {"kind": "reward"}}), "objective.terms.0.objective.kind", "known are divergence"),
    (given(K1 | {"wieght": 2}), "objective.terms.0.wieght", "did you mean 'weight'?"),
    (given(K1 | {"weight": 0}), "objective.terms.0.weight", "give more than 0"),
    (given(K1 | {"final_weight": 2}), "objective.terms.0.over_steps", "give both or neither"),
    (given(K1 | {"where": {"txt": "student"}}), "objective.terms.0.where.txt", "did you mean 'text'?"),
    (
        given(K1 | {"where": {"log_ratio_above": 1, "log_ratio_up_to": 0}}),
        "objective.terms.0.where.log_ratio_above",
        "nothing is left",
    ),
    (
        given(K1 | {"where": {"student_entropy_top": 1.0}}),
        "objective.terms.0.where.student_entropy_top",
        "give less than 1",
    ),
    (given(K1 | {"from_step": 3, "until_step": 3}), "objective.terms.0.until_step", "not above from_step"),
    (given(K1 | {"from_step": 3}), "objective.terms", "no term acts at step 0; give one a smaller from_step"),
    (given(K1 | {"until_step": 3}), "objective.terms", "no term acts at step 3"),
    (
        given(TOP, {"objective": TOP["objective"] | {"support": {"kind": "union_top_k", "k": 4}}}),
        "objective.terms.1.objective.support.k",
        "4 is not the 16 of a term before; the teacher is asked once, give one k",
    ),
    (
        given(PAIRS | {"where": {"text": "other"}}, rollout={"source": "paired"}),
        "objective.terms.0.where",
        "compared as a whole",
    ),
    (given(RETURN, PAIRS, rollout={"source": "paired"}), "objective.terms.1.objective.kind", "keep one"),
    (given(RETURN, K1, RETURN), "objective.terms.2.objective.credit", "keep one"),
    (
        given({"objective": FULL["objective"] | {"target": CLOCK}}),
        "objective.terms.0.objective.target.adaptive",
        "remove it",
    ),
    (given(K1, SFT), "rollout.source", "'student' does not go with objective.terms.1.objective.kind = 'supervised'"),
    (given(K1, SFT, rollout={"source": "paired"}), "rollout.source", "or restrict the term by where.text"),
    (
        given(K1 | {"where": {"text": "student"}}, rollout={"source": "adaptive", "adaptive": {}}),
        "rollout.source",
        "it can learn from student, teacher_mixed, pushed",
    ),
    (
        given({"objective": FULL["objective"] | {"support": {"kind": "sampled"}}}, rollout={"source": "paired"}),
        "objective.terms.0.objective.support",
        "student text only",
    ),
    (given(K1, teachers=[]), "teachers", "add [[teachers]]"),
]


@pytest.mark.parametrize(("spec", "field", "said"), REFUSED)
def test_a_bad_sum_is_refused_in_one_sentence_with_its_field(spec: Any, field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(spec)
    assert refused.value.field == field
    assert said in refused.value.message
    assert "\n" not in refused.value.message
