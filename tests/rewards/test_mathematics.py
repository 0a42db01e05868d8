"""Answers are equal as mathematics, and one whose comparison does not end takes nothing else with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tutelage.rewards.graders import Graders, grade
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


@pytest.fixture
def graders() -> Iterator[Graders]:
    with closing(Graders()) as graders:
        yield graders


def comparing() -> set[int]:
    """The processes of ours that compare."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread or a process that has just ended
            for pid in (task / "children").read_text().split():
                if b"algebra" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(int(pid))
    return found


def half(graders: Graders, completion: str = "1/2", timeout_s: float = 30.0) -> float | None:
    item = RewardItem(prompt="p", completion=completion, reference="0.5")
    (reward,) = graders.grade(Math(timeout_s=timeout_s), [item])
    return reward.value


def test_a_process_that_compared_compares_for_the_next_request_until_its_owner_is_closed(graders: Graders) -> None:
    assert half(graders) == 1.0
    (kept,) = comparing()
    assert (half(graders, "2/4"), half(graders, "1/3")) == (1.0, 0.0)
    assert comparing() == {kept}
    graders.close()
    assert comparing() == set()


def test_a_process_that_was_killed_at_its_deadline_is_followed_by_another(graders: Graders) -> None:
    assert half(graders) == 1.0
    stuck = comparing()
    assert half(graders, ENDLESS, timeout_s=1.0) is None
    assert comparing() == set()
    assert half(graders) == 1.0
    assert len(comparing()) == 1
    assert not comparing() & stuck


def test_a_process_that_ended_while_nobody_asked_is_no_answers_fault(graders: Graders) -> None:
    assert half(graders) == 1.0
    (idle,) = comparing()
    os.kill(idle, signal.SIGKILL)
    os.waitid(os.P_PID, idle, os.WEXITED | os.WNOWAIT)
    assert half(graders) == 1.0


def test_of_the_processes_that_compare_at_once_one_is_kept(graders: Graders) -> None:
    with ThreadPoolExecutor(max_workers=3) as beside:
        assert list(beside.map(lambda _: half(graders), range(6))) == [1.0] * 6
    assert len(comparing()) == 1
