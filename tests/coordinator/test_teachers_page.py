"""The page of teachers: what ails them, how their replicas compare, and what runs cost them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
from dashboard_pages import HOSTILE, shown

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import (
    Activity,
    Breaker,
    Overload,
    ReplicaView,
    RunSpending,
    TeacherInfo,
    TeacherRegistration,
)


async def test_teachers_are_shown_with_what_ails_them(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, teacher_info: Callable[..., TeacherInfo]
) -> None:
    assert "No teacher has registered" in (await shown(http, "/teachers")).text
    overload = Overload(lasting_s=61, retry_after_s=5, reason=HOSTILE)
    info = teacher_info("walker").model_copy(update={"overload": overload})
    body = TeacherRegistration(name="walker", url="http://127.0.0.1:9", info=info).model_dump(mode="json")
    assert (await http.post("/v1/teachers", json=body)).status_code == 200
    page = await shown(http, "/teachers")
    assert "over its limits" in page.text
    assert "for 1 min 1 s and asked to wait 5 s" in page.text


def replica(name: str, breaker: Breaker, p95_s: float | None) -> ReplicaView:
    counts = dict.fromkeys(("outstanding_tokens", "asked", "failed", "quarantined", "hedged", "hedge_won"), 0)
    return ReplicaView(name=name, up=True, breaker=breaker, p50_s=0.5, p95_s=p95_s, p99_s=9.0, **counts)


async def test_the_worst_replica_stands_beside_the_mean_and_each_has_its_circuit(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, teacher_info: Callable[..., TeacherInfo]
) -> None:
    views = replica("a:1", "closed", 1.0), replica("b:2", "open", 4.0), replica(HOSTILE, "half_open", None)
    info = teacher_info("walker").model_copy(update={"replicas": views})
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", info)
    page = await shown(http, "/teachers")
    assert "95 take no longer than 2.5 s on the replicas' mean, and 4 s at the worst, b:2" in page.text
    assert [state in page.text for state in ("closed", "open", "half open")] == [True, True, True]
    info = info.model_copy(update={"replicas": (), "breaker": "open"})
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", info)
    assert "upstream away" in (await shown(http, "/teachers")).text


async def test_what_runs_cost_a_teacher_is_said_with_their_names(
    http: httpx2.AsyncClient,
    coordinator: CoordinatorClient,
    pushed_spec: dict[str, Any],
    teacher_info: Callable[..., TeacherInfo],
) -> None:
    run = await coordinator.submit(pushed_spec)
    for name in ("walker", "talker"):
        spent = [RunSpending(run_id=each, tokens=20, usd=0.25) for each in (run.id, HOSTILE)]
        activity = Activity(answered=1, spent_tokens=40, spent_usd=0.5, runs=tuple(spent))
        info = teacher_info(name).model_copy(update={"activity": activity})
        await coordinator.register_teacher(name, "http://127.0.0.1:9", info)
    page = await shown(http, "/teachers")
    own = [each["href"] for each in page.all("a") if str(each["href"]).startswith("/runs/")]
    assert own == [f"/runs/{run.id}"] * 2, "a run that is not there is no link"
