"""What a teacher tells of itself with each registration: how fast it answers, its canaries, what it spent."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.engines.latency import LATEST
from tutelage.teacher.activity import CANARIES, RUNS, Record
from tutelage.teacher.prices import PICO, Cost
from tutelage_client.wire import RUN_HEADER


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
        record.spend(Cost(3, PICO // 10), None)
    assert (record.view().spent_tokens, record.view().spent_usd) == (30, 1.0)
    assert record.view().runs == ()


def test_what_each_run_cost_is_told_of_those_that_asked_last() -> None:
    record = Record()
    for number in range(RUNS + 2):
        record.spend(Cost(1, PICO), "first")
        record.spend(Cost(number, 0), f"run-{number}")
    told = {each.run_id: (each.tokens, each.usd) for each in record.view().runs}
    assert len(told) == RUNS
    assert told["first"] == (RUNS + 2, RUNS + 2.0), "it asked all the time"
    assert "run-2" not in told
    assert list(told)[-2:] == ["first", f"run-{RUNS + 1}"]


async def test_a_run_is_told_what_it_costs_by_either_door(start_teacher: Any) -> None:
    body = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
    async with start_teacher() as teacher:
        await teacher.http.post("/v1/score", json=body)
        await teacher.http.post("/v1/score", json=body, headers={RUN_HEADER: "run-1"})
        activity = (await teacher.client.info()).activity
    assert [each.run_id for each in activity.runs] == ["run-1"]
    assert activity.runs[0].tokens == activity.spent_tokens / 2


async def test_a_teacher_tells_what_it_did(start_teacher: Any, until: Any) -> None:
    async with start_teacher(canary_every_s=0.02) as teacher:
        await until(lambda: len(teacher.engine.calls) >= 3)
        activity = (await teacher.client.info()).activity
    assert activity is not None
    assert activity.canaries[0].ok
    assert activity.answered == 0, "its own questions are no answers"
