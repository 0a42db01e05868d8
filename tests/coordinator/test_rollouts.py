"""Shown rollouts with their tokens: what a trainer reported is what a person reads, and what is unknown stays so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import numpy as np
import pytest

from tutelage.coordinator import rollouts
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import Inspection, Lease, Outcome, Rollout, RunError, StepReport
from tutelage_client.worker import WorkerClient


async def show(worker: WorkerClient, lease: Lease, step: int, *shown: Rollout, **inspections: Inspection) -> None:
    await report(worker, lease, step, rollouts=list(shown), inspections=inspections)


async def report(worker: WorkerClient, lease: Lease, step: int, **told: Any) -> None:
    counted = {"metrics": {}, "student_tokens": 0, "teacher_tokens": 0}
    await worker.report_step(lease.run_id, StepReport(epoch=lease.epoch, step=step, **counted, **told))


async def test_what_was_reported_of_each_token_is_read_again(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    lease: Lease,
    rollout: Callable[[str], Rollout],
    inspection: Inspection,
) -> None:
    await show(worker, lease, 1, rollout("a"), rollout("b"), a=inspection)
    view = await coordinator.rollout(lease.run_id, "a")
    assert (view.step, view.epoch) == (1, lease.epoch)
    assert view.rollout.model_dump(mode="json") == rollout("a").model_dump(mode="json")
    assert view.inspection is not None
    assert view.inspection.model_dump(mode="json") == inspection.model_dump(mode="json")
    for name, array in inspection.arrays().items():
        np.testing.assert_array_equal(getattr(view.inspection, name), array)
    assert (await coordinator.rollout(lease.run_id, "b")).inspection is None
    listed = await coordinator.rollouts(lease.run_id)
    assert [each.rollout.id for each in listed.data] == ["a", "b"]


async def test_an_answer_to_a_held_out_line_is_told_from_what_is_learned_from(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    lease: Lease,
    rollout: Callable[[str], Rollout],
    inspection: Inspection,
) -> None:
    shown = {"rollouts": [rollout("a")], "held_out": [rollout("held-out-1-at-2")]}
    await report(worker, lease, 2, **shown, inspections={"held-out-1-at-2": inspection})
    listed = await coordinator.rollouts(lease.run_id)
    assert {each.rollout.id: each.held_out for each in listed.data} == {"a": False, "held-out-1-at-2": True}
    view = await coordinator.rollout(lease.run_id, "held-out-1-at-2")
    assert view.held_out and view.inspection is not None


async def test_in_json_the_unknown_is_null_and_never_zero(
    http: httpx2.AsyncClient,
    worker: WorkerClient,
    lease: Lease,
    rollout: Callable[[str], Rollout],
    inspection: Inspection,
) -> None:
    await show(worker, lease, 1, rollout("a"), a=inspection)
    told = (await http.get(f"/v1/runs/{lease.run_id}/rollouts/a")).json()["inspection"]
    assert told["start"] == 2
    assert told["valid"] == [True, True, False]
    assert told["teacher_logprob"] == [-2.0, None, None]
    assert told["teacher_entropy"] == [0.5, 0.25, None]
    assert told["contribution"] == [1.5, 0.0, None]


async def test_an_id_may_hold_what_a_path_divides_at(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease, rollout: Callable[[str], Rollout]
) -> None:
    for name in ("a/b", "ü?#%2F"):
        await show(worker, lease, 1, rollout(name))
        assert (await coordinator.rollout(lease.run_id, name)).rollout.id == name


async def test_a_rollout_that_is_not_shown_is_refused(coordinator: CoordinatorClient, lease: Lease) -> None:
    with pytest.raises(ProblemResponse, match="shows no rollout 'x'") as refused:
        await coordinator.rollout(lease.run_id, "x")
    assert (refused.value.status, refused.value.code) == (404, "rollout_not_found")
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.rollout("run-x", "x")
    assert refused.value.code == "run_not_found"


async def test_a_rollout_of_a_step_that_is_done_again_is_gone(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease, rollout: Callable[[str], Rollout]
) -> None:
    await show(worker, lease, 2, rollout("old"))
    lost = RunError(code="lost", message="gone", category="infra")
    await worker.report_outcome(lease.run_id, Outcome(epoch=lease.epoch, result="crashed", error=lost))
    again = await worker.lease("w2")
    assert again is not None
    await show(worker, again, 1, rollout("new"))
    with pytest.raises(ProblemResponse, match="a later attempt did again are gone"):
        await coordinator.rollout(lease.run_id, "old")


async def test_an_inspection_of_other_rows_is_refused(
    http: httpx2.AsyncClient, lease: Lease, rollout: Callable[[str], Rollout], inspection: Inspection
) -> None:
    body = {"epoch": 1, "step": 1, "metrics": {}, "student_tokens": 0, "teacher_tokens": 0}
    shown = {"rollouts": [rollout("a").model_dump(mode="json")]}
    moved = inspection.model_dump(mode="json") | {"start": 7}
    path = f"/internal/v1/runs/{lease.run_id}/steps"
    answer = await http.post(path, json=body | shown | {"inspections": {"a": moved}})
    assert answer.status_code == 422
    assert "3 rows from 7 on, its completion has 3 tokens from 2 on" in answer.json()["detail"]


async def test_rollouts_of_the_same_prompt_are_found(
    worker: WorkerClient, lease: Lease, rollout: Callable[[str], Rollout], database: Any
) -> None:
    other = rollout("z").model_copy(update={"prompt_ids": np.array([2, 1])})
    await show(worker, lease, 1, rollout("a"), other)
    await show(worker, lease, 3, rollout("c"), rollout("d"))
    await show(worker, lease, 2, rollout("b"))
    with database.read() as session:
        assert rollouts.others(session, lease.run_id, rollout("b")) == [(1, "a", 1), (3, "c", 1), (3, "d", 2)]
        assert rollouts.others(session, lease.run_id, other) == []


async def test_the_oldest_inspections_of_a_run_are_let_go_for_new_ones(
    coordinator: CoordinatorClient,
    lease: Lease,
    rollout: Callable[[str], Rollout],
    inspection: Inspection,
    database: Any,
) -> None:
    most = 2 * len(rollouts.packed(inspection))
    with database.write() as session:
        for step, name in enumerate(("a", "b", "c"), start=1):
            shown = {"rollouts": [rollout(name)], "inspections": {name: inspection}}
            counted = {"epoch": 1, "metrics": {}, "student_tokens": 0, "teacher_tokens": 0}
            rollouts.keep(session, lease.run_id, StepReport(step=step, **counted, **shown), most)
    kept = [await coordinator.rollout(lease.run_id, name) for name in ("a", "b", "c")]
    assert [each.inspection is None for each in kept] == [True, False, False]


def test_what_is_kept_of_ten_thousand_tokens_is_bounded() -> None:
    rows, k = 10_000, 8
    ids, floats = np.zeros((rows, k), np.int32), np.full(rows, -0.5, np.float32)
    arrays: dict[str, Any] = {}
    for whose in ("student", "teacher"):
        arrays |= {f"{whose}_{name}": floats for name in ("logprob", "entropy")}
        arrays |= {f"{whose}_topk_ids": ids, f"{whose}_topk_logprob": np.full((rows, k), -1.0, np.float32)}
    whole = Inspection(start=1, valid=np.ones(rows, bool), contribution=floats, learned_tokens=rows, **arrays)
    assert len(rollouts.packed(whole)) < 160 * rows
