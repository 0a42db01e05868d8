"""Answers are equal as mathematics, and one whose comparison does not end takes nothing else with it."""

from __future__ import annotations

import pytest

from tutelage.rewards.graders import grade
from tutelage_client.wire import Math, Reward, RewardItem

ENDLESS = "$9^{9^{9^{9}}}$"


def graded(*pairs: tuple[str, str | None], timeout_s: float = 30.0) -> list[Reward]:
    items = [RewardItem(prompt="p", completion=completion, reference=reference) for completion, reference in pairs]
    return grade(Math(timeout_s=timeout_s), items)


def test_equal_answers_are_equal_however_they_are_written() -> None:
    equal = [
        (r"So it is \boxed{\frac12}.", "1/2"),
        ("it is 0.5", r"\frac{1}{2}"),
        ("The answer is 42.", "#### 42"),
        ("$(x+1)^2$", "x^2+2x+1"),
        (r"$\{2,1\}$", r"\{1,2\}"),
        ("1234", "1,234"),
        (r"\boxed{B}", r"\text{B}"),
        ("Paris", "Paris"),
    ]
    unequal = [("43", "42"), ("no idea", "3"), (r"$\frac{\frac{", "3"), (r"$\{1,2\}$", "5"), ("$x+1$", "x+2")]
    rewards = graded(*equal, *unequal)
    assert [reward.value for reward in rewards] == [1.0] * len(equal) + [0.0] * len(unequal)
    assert rewards[1].detail == {"found": "0.5"}


def test_an_answer_that_takes_for_ever_is_not_valid_and_the_ones_after_it_are_graded() -> None:
    before, endless, after = graded(("2", "4/2"), (ENDLESS, "3"), ("3.0", "3"), timeout_s=5.0)
    assert (before.value, after.value) == (1.0, 1.0)
    assert (endless.value, endless.detail["outcome"]) == (None, "timed_out")
    assert "longer than 5 s" in endless.detail["reason"]


@pytest.mark.parametrize("reference", [None, "  "])
def test_without_a_reference_nothing_is_graded(reference: str | None) -> None:
    (reward,) = graded(("3", reference))
    assert not reward.valid
    assert reward.detail == {"reason": "the grader math needs a reference to compare with"}


def test_a_reference_that_is_no_mathematics_is_the_fault_of_the_data() -> None:
    (reward,) = graded(("3", r"\frac{"))
    assert not reward.valid
    assert reward.detail == {"reason": "the reference cannot be read as mathematics"}


def test_an_answer_longer_than_a_pipe_holds_is_graded() -> None:
    (reward,) = graded(("word " * 40_000 + "so it is 7.", "7"))
    assert reward.value == 1.0
