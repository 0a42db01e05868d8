"""A search is bounded by its time, costs an answer that takes all of it the reward, and nobody else anything."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from grading_processes import grading
from pydantic import ValidationError

from tutelage.rewards import Graders, grade
from tutelage.rewards.patterns import SEARCHED
from tutelage_client.wire import Pattern, Reward, RewardItem

EXPONENTIAL, POWER = "(a+)+$", "a*a*a*b"


def graded(pattern: str, *completions: str, timeout_s: float = 5.0) -> list[Reward]:
    items = [RewardItem(prompt="p", completion=completion, reference="aa") for completion in completions]
    return grade(Pattern(pattern=pattern, timeout_s=timeout_s), items)


def test_only_the_end_of_a_long_completion_is_searched() -> None:
    before, in_time = graded("needle", "needle" + "x" * SEARCHED, "x" * SEARCHED * 50 + "needle")
    assert (before.value, in_time.value) == (0.0, 1.0)


def test_a_pattern_of_quadratic_cost_ends_on_a_text_of_a_million_characters() -> None:
    assert graded("a+b", "a" * 1_000_000)[0].detail == {}  # unbounded, it would take hours


@pytest.mark.parametrize(("pattern", "endless"), [(EXPONENTIAL, "a" * 34 + "b"), (POWER, "a" * 10_000)])
def test_an_answer_that_takes_for_ever_is_wrong_and_the_ones_after_it_are_graded(pattern: str, endless: str) -> None:
    before, stuck, after = graded(pattern, "aab" if pattern == POWER else "aa", endless, "c", timeout_s=0.5)
    assert (before.value, after.value) == (1.0, 0.0)
    assert after.detail == {}
    assert (stuck.value, stuck.valid) == (0.0, True)
    assert stuck.detail == {"outcome": "timed_out", "reason": "searching for the pattern took longer than 0.5 s"}


def test_any_text_is_searched_as_it_is() -> None:
    assert [r.value for r in graded("(?s)\n(.*)\\Z", "\ud800\naa", "\x00\naa", '"]\n\naa')] == [1.0, 1.0, 1.0]
    (reward,) = graded("(?s)(.*)", "\U0001f600" * SEARCHED)
    assert reward.detail == {"found": "\U0001f600" * SEARCHED}


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError, match="pattern is not a regular expression"):
        Pattern(pattern=pattern)


async def test_the_event_loop_goes_on_meanwhile_and_a_call_that_is_given_up_ends_its_process(until: Any) -> None:
    graders, item = Graders(), RewardItem(prompt="p", completion="a" * 34 + "b", reference="aa")
    call = asyncio.create_task(graders.grade(Pattern(pattern=EXPONENTIAL, timeout_s=60.0), [item] * 3))
    await until(lambda: grading("search"))
    began_s = time.monotonic()
    for _ in range(50):
        await asyncio.sleep(0.01)
    assert time.monotonic() - began_s < 5.0
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert grading("search") == set()
    await graders.close()


async def test_calls_take_turns_and_a_long_one_does_not_hold_a_short_one_up() -> None:
    graders = Graders(at_once=1)
    slow = Pattern(pattern=EXPONENTIAL, timeout_s=0.2)
    stuck, plain = (RewardItem(prompt="p", completion=text, reference="aa") for text in ("a" * 34 + "b", "aa"))
    long = asyncio.create_task(graders.grade(slow, [stuck] * 200))
    await asyncio.sleep(0)
    assert [reward.value for reward in await graders.grade(slow, [plain, plain])] == [1.0, 1.0]
    assert not long.done()
    long.cancel()
    await asyncio.wait([long])
    await graders.close()
