"""Answers are equal as mathematics, and one whose comparison does not end takes nothing else with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from grading_processes import grading

from tutelage.rewards import Graders, grade
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


def test_an_answer_that_takes_for_ever_is_wrong_and_the_ones_after_it_are_graded() -> None:
    before, endless, after = graded(("2", "4/2"), (ENDLESS, "3"), ("3.0", "3"), timeout_s=5.0)
    assert (before.value, after.value) == (1.0, 1.0)
    assert (endless.value, endless.valid, endless.detail["outcome"]) == (0.0, True, "timed_out")
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


@pytest.mark.parametrize("answer", ["3", ENDLESS + " or $3$"])
def test_a_reference_that_takes_for_ever_is_the_fault_of_the_data(answer: str) -> None:
    (reward,) = graded((answer, ENDLESS), timeout_s=1.0)
    assert not reward.valid
    assert reward.detail["reason"].startswith("the reference cannot be compared with a plain number: ")
    assert "outcome" not in reward.detail


def test_an_answer_on_which_the_library_fails_is_wrong() -> None:
    (reward,) = graded(("$" + "(" * 5000 + "x" + ")" * 5000 + "$", "3"), timeout_s=2.0)
    assert (reward.value, reward.valid) == (0.0, True)


def test_an_answer_longer_than_a_pipe_holds_is_graded() -> None:
    (reward,) = graded(("word " * 40_000 + "so it is 7.", "7"))
    assert reward.value == 1.0


@pytest.fixture
async def graders() -> AsyncIterator[Graders]:
    graders = Graders()
    yield graders
    await graders.close()


async def half(graders: Graders, completion: str = "1/2", timeout_s: float = 30.0) -> float | None:
    item = RewardItem(prompt="p", completion=completion, reference="0.5")
    (reward,) = await graders.grade(Math(timeout_s=timeout_s), [item])
    return reward.value


async def test_a_process_that_compared_compares_for_the_next_request_until_its_owner_is_closed(
    graders: Graders,
) -> None:
    assert await half(graders) == 1.0
    (kept,) = grading("algebra")
    assert (await half(graders, "2/4"), await half(graders, "1/3")) == (1.0, 0.0)
    assert grading("algebra") == {kept}
    await graders.close()
    assert grading("algebra") == set()


async def test_a_process_that_spent_its_time_is_followed_by_another(graders: Graders) -> None:
    assert await half(graders) == 1.0
    stuck = grading("algebra")
    assert await half(graders, ENDLESS, timeout_s=1.0) == 0.0
    assert await half(graders) == 1.0
    assert len(grading("algebra")) == 1
    assert not grading("algebra") & stuck


async def test_a_process_that_ended_while_nobody_asked_is_no_answers_fault(graders: Graders, until: Any) -> None:
    assert await half(graders) == 1.0
    (idle,) = grading("algebra")
    os.kill(idle, signal.SIGKILL)
    await until(lambda: grading("algebra") == set())
    assert await half(graders) == 1.0


async def test_of_the_processes_that_compare_at_once_one_is_kept() -> None:
    graders = Graders(at_once=3)
    calls = [asyncio.create_task(half(graders)) for _ in range(6)]
    assert await asyncio.gather(*calls) == [1.0] * 6
    assert len(grading("algebra")) == 1
    await graders.close()


async def test_a_process_that_is_not_given_cpu_time_is_no_answers_fault(
    graders: Graders, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    monkeypatch.setattr("tutelage.rewards.processes._PATIENCE_S", 0.5)
    assert await half(graders) == 1.0
    (held,) = grading("algebra")
    os.kill(held, signal.SIGSTOP)
    item = RewardItem(prompt="p", completion="1/2", reference="0.5")
    (reward,) = await graders.grade(Math(timeout_s=0.5), [item])
    assert (reward.value, reward.detail["outcome"]) == (None, "starved")
    assert grading("algebra") == set()
    assert await half(graders) == 1.0
