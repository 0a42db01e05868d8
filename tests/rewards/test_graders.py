"""Graders tell right from wrong, and neither from what cannot be graded."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.rewards import grade
from tutelage.rewards.graders import GRADERS
from tutelage.rewards.grading import ALONE, ASKED
from tutelage_client.wire import (
    Contains,
    ExactMatch,
    Grader,
    LastNumber,
    Pattern,
    Reward,
    RewardItem,
    Walk,
)
from tutelage_client.wire.grading import ModelFree


def one(grader: Grader, completion: str, reference: str | None) -> Reward:
    (reward,) = grade(grader, [RewardItem(prompt="p", completion=completion, reference=reference)])
    return reward


@pytest.mark.parametrize(
    ("grader", "completion", "reference", "value"),
    [
        (ExactMatch(), " 12\n", "12", 1.0),
        (ExactMatch(), "12.", "12", 0.0),
        (ExactMatch(), "Yes", "yes", 0.0),
        (ExactMatch(ignore_case=True), "STRASSE", "straße", 1.0),
        (ExactMatch(), "", "", 1.0),
        (LastNumber(), "first 3, then 1,234.50.", "1234.5", 1.0),
        (LastNumber(), "the answer is -7", "-7", 1.0),
        (LastNumber(), "10-7", "7", 1.0),
        (LastNumber(), "x = -3", "3", 0.0),
        (LastNumber(), "0.1", "0.10", 1.0),
        (LastNumber(), "1e3", "1000", 1.0),
        (LastNumber(), "so .5", "0.5", 1.0),
        (LastNumber(), "1,2,3", "3", 1.0),
        (LastNumber(), "I cannot say", "3", 0.0),
        (LastNumber(tolerance=0.01), "3.14", "3.15", 1.0),
        (LastNumber(tolerance=0.01), "3.14", "3.151", 0.0),
        (LastNumber(), "42", "#### 42", 1.0),
        (Contains(), "Paris is it", "Paris", 1.0),
        (Contains(), "paris", "Paris", 0.0),
        (Contains(ignore_case=True), "paris", "Paris", 1.0),
        (Pattern(pattern=r"^a+$"), "aaa", None, 1.0),
        (Pattern(pattern=r"^a+$"), "aab", None, 0.0),
        (Pattern(pattern=r"answer: (\w+)"), "answer: yes", "yes", 1.0),
        (Pattern(pattern=r"answer: (\w+)"), "answer: no", "yes", 0.0),
        (Pattern(pattern=r"answer: (\w+)"), "no idea", "yes", 0.0),
        (Pattern(pattern=r"a|(b)"), "a", "b", 0.0),
        (Walk(), "RRDR", "3,-1", 1.0),
        (Walk(), "LRRURDRD ", "3,-1", 1.0),
        (Walk(), "", "0,0", 1.0),
        (Walk(), "RRD", "3,-1", 0.0),
        (Walk(), "RR DR", "3,-1", 0.0),
        (Walk(), "3,-1", "3,-1", 0.0),
    ],
)
def test_right_and_wrong_are_told_apart(grader: Grader, completion: str, reference: str | None, value: float) -> None:
    assert one(grader, completion, reference).value == value


@pytest.mark.parametrize(
    ("grader", "reference"),
    [
        (ExactMatch(), None),
        (LastNumber(), None),
        (LastNumber(), "none"),
        (Contains(), None),
        (Contains(), "  "),
        (Pattern(pattern="(a)"), None),
        (Walk(), None),
        (Walk(), "3;-1"),
    ],
)
def test_what_cannot_be_compared_is_not_graded_and_says_why(grader: Grader, reference: str | None) -> None:
    reward = one(grader, "a 1", reference)
    assert (reward.value, reward.valid) == (None, False)
    assert "reference" in reward.detail["reason"]


def test_a_number_found_is_shown() -> None:
    assert one(LastNumber(), "it is 1,000", "7").detail == {"found": "1000"}


def test_rewards_follow_the_order_of_the_items() -> None:
    items = [RewardItem(prompt="p", completion=c, reference="1") for c in ("1", "2", "1")]
    assert [reward.value for reward in grade(ExactMatch(), items)] == [1.0, 0.0, 1.0]


def test_every_kind_on_the_wire_has_a_function() -> None:
    kinds = [*GRADERS, *ASKED, *ALONE]
    assert sorted(member.model_fields["kind"].default for member in get_args(ModelFree)) == sorted(kinds)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9), st.booleans())
def test_a_number_is_read_however_it_is_written(number: object, commas: bool) -> None:
    text = f"{number:,}" if commas else str(number)
    assert one(LastNumber(), f"So it is {text}.", str(number)).value == 1.0


@given(st.text(max_size=60), st.text(max_size=20))
def test_no_text_breaks_a_grader(completion: str, reference: str) -> None:
    for grader in (ExactMatch(), LastNumber(), Contains(ignore_case=True), Walk()):
        assert one(grader, completion, reference).value in (0.0, 1.0, None)
