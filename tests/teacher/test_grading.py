"""Grading stands in nobody's way: the teacher goes on beside it, and nothing of it goes on for nobody."""

from __future__ import annotations

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from grading_processes import grading

from tutelage.serving import PROBLEM_TYPE
from tutelage.teacher.fairness import lets_in

SCORED = {"sequences": [{"token_ids": [1, 2, 3], "score_start": 1}]}
STUCK = {"prompt": "p", "completion": "a" * 34 + "b", "reference": "r"}
HUGE = {"prompt": "p", "completion": "$10^{10^{10}}$", "reference": "3"}
EXPONENTIAL = {"kind": "pattern", "pattern": "(a+)+$"}
POWER = {"kind": "pattern", "pattern": "a*a*a*b"}
MATH = {"kind": "math", "timeout_s": 60}


async def reward(teacher: Any, kind: dict[str, Any], *items: dict[str, Any], **headers: str) -> httpx2.Response:
    return await teacher.http.post("/v1/reward", json={"items": items, "reward": kind}, headers=headers, timeout=60.0)


@pytest.mark.parametrize(
    ("kind", "item"),
    [(EXPONENTIAL, STUCK), (POWER, STUCK | {"completion": "a" * 10_000})],
    ids=["exponential", "power"],
)
async def test_a_search_that_never_ends_holds_nobody_up_and_ends_in_time(
    start_teacher: Any, until: Any, kind: dict[str, Any], item: dict[str, Any]
) -> None:
    async with start_teacher() as teacher:
        asked = asyncio.create_task(reward(teacher, kind | {"timeout_s": 2}, item))
        await until(lambda: grading("search"))
        for _ in range(10):
            async with asyncio.timeout(1.0):
                assert (await teacher.http.get("/healthz")).status_code == 200
                assert (await teacher.http.post("/v1/score", json=SCORED)).status_code == 200
        assert not asked.done()
        (answer,) = (await asked).json()["rewards"]
    assert (answer["value"], answer["valid"], answer["detail"]["outcome"]) == (0.0, True, "timed_out")


async def test_graders_leave_the_threads_to_the_model_and_stop_at_their_deadline(
    start_teacher: Any, until: Any
) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(max_workers=1))
    async with start_teacher() as teacher:
        asked = [
            asyncio.create_task(reward(teacher, MATH, *[HUGE] * 4, **{"Tutelage-Timeout-S": "6"})) for _ in range(6)
        ]
        await until(lambda: grading("algebra"))
        async with asyncio.timeout(1.0):
            assert await asyncio.to_thread(lambda: "at once") == "at once"
        answers = await asyncio.gather(*asked)
        assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(504, "deadline_exceeded")}
        assert grading("algebra") == set()
        assert teacher.app.state.scorer.grading.waiting_items == 0


async def test_items_that_would_wait_too_long_are_refused_and_another_caller_is_let_in(
    start_teacher: Any, until: Any, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("\n".join(hashlib.sha256(key).hexdigest() for key in (b"busy", b"small")))
    async with start_teacher(max_waiting_items=2, keys_file=keys, key="busy") as teacher:
        stuck = EXPONENTIAL | {"timeout_s": 60}
        asked = asyncio.create_task(reward(teacher, stuck, STUCK, STUCK))
        await until(lambda: grading("search"))
        refused = await reward(teacher, EXPONENTIAL, STUCK)
        assert refused.headers["content-type"] == PROBLEM_TYPE
        assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["detail"].startswith("2 items wait already, at most 2 may; try again in 1 s")
        other = await reward(teacher, EXPONENTIAL, STUCK | {"completion": "r"}, Authorization="Bearer small")
        assert (other.status_code, other.json()["rewards"][0]["value"]) == (200, 0.0)
        asked.cancel()
        await asyncio.wait([asked])
        await until(lambda: len(grading("search")) == 1)  # the other caller's, which waits for the next
        again = await reward(teacher, {"kind": "exact_match"}, STUCK)
    assert again.status_code == 200


def test_when_all_room_is_taken_less_than_an_equal_share_lets_in() -> None:
    assert lets_in("a", {"a": 9}, 10)
    assert not lets_in("a", {"a": 10}, 10)
    assert lets_in("b", {"a": 10}, 10)
    assert lets_in("b", {"a": 10, "b": 4}, 10)
    assert not lets_in("b", {"a": 10, "b": 5}, 10)
