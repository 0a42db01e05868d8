"""The section [reward]: what goes with which objective, and what is refused with its remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, parse_spec, required_signals
from tutelage_client.spec.rewards import REWARDED
from tutelage_client.wire import Signal

TOY = [{"name": "toy"}]
RUBRIC = {"kind": "rubric", "rubric": "It is right."}
PAIRWISE = {"kind": "pairwise", "rubric": "The better one."}
SAMPLED = {"kind": "divergence", "support": {"kind": "sampled"}}


def parsed(**sections: Any) -> RunSpec:
    base = {
        "name": "run",
        "student": {"model": "student"},
        "data": {"train": "prompts.jsonl"},
        "rollout": {"samples_per_prompt": 4},
        "objective": {"kind": "reward"},
        "reward": {},
    }
    given = {key: value for key, value in (base | sections).items() if value is not None}
    return parse_spec(given)


def test_a_grader_alone_needs_no_teacher() -> None:
    spec = parsed()
    assert (spec.asks_teacher_scores, spec.asks_teacher_rewards) == (False, False)


def test_a_judge_is_a_teacher_that_scores_nothing() -> None:
    spec = parsed(reward={"by": RUBRIC}, teachers=TOY)
    assert (spec.asks_teacher_scores, spec.asks_teacher_rewards) == (False, True)
    assert spec.reward is not None
    assert not spec.reward.judged_together


def test_a_teacher_in_the_ratio_is_asked_for_the_written_tokens() -> None:
    spec = parsed(reward={"teacher_share": 0.5}, teachers=TOY, stabilizers=[{"kind": "signal_clip"}])
    assert required_signals(spec) == {Signal.SAMPLED}


@pytest.mark.parametrize("kind", REWARDED)
def test_a_stored_spec_with_a_reward_is_read_again(kind: str) -> None:
    objective = SAMPLED if kind == "divergence" else {"kind": kind}
    objective |= {"terms": [{"objective": SAMPLED, "weight": 0.5}]} if kind == "sum" else {}
    spec = parsed(objective=objective, teachers=None if kind == "reward" else TOY)
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_one_sample_a_prompt_goes_with_the_batch() -> None:
    parsed(rollout={"samples_per_prompt": 1}, reward={"advantage": "batch_normalised"})


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"reward": None}, "reward", "add [reward]"),
    ({"objective": {"kind": "constant_penalty"}}, "reward", "learns from no reward"),
    ({"objective": SAMPLED, "teachers": TOY, "rollout": {"source": "data"}}, "objective.support", "student text only"),
    ({"rollout": {"source": "teacher"}}, "rollout.source", "can learn from student, paired, pushed"),
    (
        {"objective": {"kind": "divergence"}, "teachers": TOY, "rollout": {"source": "data"}},
        "rollout.source",
        "student",
    ),
    ({"rollout": {}}, "rollout.samples_per_prompt", "nothing to compare; give at least 2"),
    (
        {"rollout": {}, "reward": {"by": PAIRWISE, "advantage": "batch_normalised"}, "teachers": TOY},
        "rollout.samples_per_prompt",
        "by pairwise",
    ),
    ({"reward": {"by": RUBRIC}}, "teachers", "add [[teachers]]"),
    ({"teachers": TOY}, "teachers", "remove [[teachers]]"),
    (
        {"objective": SAMPLED, "reward": {"teacher_share": 0.5}, "teachers": TOY},
        "reward.teacher_share",
        "hears the teacher already",
    ),
    ({"stabilizers": [{"kind": "signal_clip"}]}, "stabilizers.0", "needs a teacher signal"),
    ({"stabilizers": [{"kind": "ratio_clip"}]}, "stabilizers.0", "reward.clip_below"),
    ({"reward": {"teacher_share": 1}, "teachers": TOY}, "reward.teacher_share", "give less than 1"),
    ({"reward": {"by": {"kind": "rubrik"}}}, "reward.by.kind", "did you mean 'rubric'?"),
    ({"reward": {"advantage": "best"}}, "reward.advantage", "group_normalised"),
]


@pytest.mark.parametrize(("given", "field", "said"), REFUSED)
def test_what_does_not_go_together_is_refused(given: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(**given)
    assert refused.value.field == field
    assert said in refused.value.message
