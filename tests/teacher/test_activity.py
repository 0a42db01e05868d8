"""What a teacher tells of itself with each registration: how fast it answers, its canaries, what it spent."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.teacher.activity import CANARIES, LATEST, Record
from tutelage.teacher.prices import PICO, Cost


def test_percentiles_are_of_the_last_answers() -> None:
    took_s = [*[9000.0] * 50, *map(float, range(1, LATEST + 1))]
    clock = iter([each for seconds in took_s for each in (0.0, seconds)])
    record = Record(lambda: next(clock))
    for _ in range(LATEST + 50):
        with record.timed():
            pass
    seen = record.view()
    assert (seen.answered, seen.p50_s, seen.p95_s, seen.p99_s) == (LATEST + 50, 500, 950, 990)


def test_a_request_that_failed_is_no_answer() -> None:
    record = Record()
    with pytest.raises(ValueError, match="no"), record.timed():
        raise ValueError("no")
    seen = record.view()
    assert (seen.answered, seen.p50_s, seen.p99_s) == (0, None, None)


def test_the_last_canaries_are_kept_in_order() -> None:
    record = Record()
    for number in range(CANARIES + 5):
        record.canary(f"reason {number}" if number % 2 else None)
    told = [each.reason for each in record.view().canaries]
    assert told == [f"reason {number}" if number % 2 else None for number in range(5, CANARIES + 5)]


def test_what_was_spent_adds_up_exactly() -> None:
    record = Record()
    for _ in range(10):
        record.spend(Cost(3, PICO // 10))
    assert (record.view().spent_tokens, record.view().spent_usd) == (30, 1.0)


async def test_a_teacher_tells_what_it_did(start_teacher: Any, until: Any) -> None:
    async with start_teacher(canary_every_s=0.02) as teacher:
        await until(lambda: len(teacher.engine.calls) >= 3)
        activity = (await teacher.client.info()).activity
    assert activity is not None
    assert activity.canaries[0].ok
    assert activity.answered == 0, "its own questions are no answers"
