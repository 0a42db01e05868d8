"""Rollouts that were written elsewhere: each is taken once, read in order, and judged by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import Heartbeat, Lease, Outcome, PushResult, Rollout, RolloutLimits, TeacherInfo
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]
Written = Callable[[str], Rollout]


@pytest.fixture
def sent(http: httpx2.AsyncClient) -> Callable[..., Any]:
    """The answer to these items, whatever they are."""

    async def send(run_id: str, *items: Any) -> httpx2.Response:
        return await http.post(f"/v1/runs/{run_id}/rollouts", json={"rollouts": items})

    return send


def changed(rollout: Rollout, **fields: Any) -> dict[str, Any]:
    return rollout.model_dump(mode="json") | fields


async def test_pushed_rollouts_are_taken_once_and_read_in_order(
    coordinator: CoordinatorClient, worker: WorkerClient, lease: Lease, rollout: Written
):
    result = await coordinator.push_rollouts(lease.run_id, [rollout("a"), rollout("b"), rollout("a")])
    assert (result.accepted, result.duplicates) == (2, 1)
    result = await coordinator.push_rollouts(lease.run_id, [rollout("b"), rollout("c")])
    assert (result.accepted, result.duplicates) == (1, 1)
    first = await worker.pushed(lease.run_id, limit=2)
    assert first.next is not None
    rest = await worker.pushed(lease.run_id, after=int(first.next))
    assert [r.id for r in [*first.data, *rest.data]] == ["a", "b", "c"]
    assert rest.next is not None
    nothing = await worker.pushed(lease.run_id, after=int(rest.next))
    assert (nothing.data, nothing.next) == ([], rest.next)


async def test_rollouts_are_refused_where_the_run_writes_its_own_or_is_over(
    coordinator: CoordinatorClient, lease: Lease, worker: WorkerClient, spec: Spec, rollout: Written
):
    own = await coordinator.submit(spec())
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.push_rollouts(own.id, [rollout("a")])
    assert refused.value.code == "not_pushed"
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="failed"))
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.push_rollouts(lease.run_id, [rollout("a")])
    assert refused.value.code == "run_is_final"


async def test_a_rollout_that_no_teacher_takes_is_refused_and_the_others_are_kept(
    coordinator: CoordinatorClient, pushed_spec: dict[str, Any], rollout: Any, teacher_info: Callable[..., TeacherInfo]
) -> None:
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    teachers = {"objective": {"kind": "divergence"}, "teachers": [{"name": "walker", "tags": ["walk"]}]}
    run = await coordinator.submit(pushed_spec | teachers)
    walk = rollout("a").model_copy(update={"tag": "walk"})
    result = await coordinator.push_rollouts(run.id, [walk, rollout("b").model_copy(update={"tag": "sum"})])
    assert result.accepted == 1
    (refused,) = result.refused
    assert (refused.index, refused.id, refused.field) == (1, "b", "rollouts.1.tag")
    assert "'sum'" in refused.detail and "'walk'" in refused.detail


@pytest.mark.parametrize(
    ("wrong", "field", "told"),
    [
        ({"mask": [True]}, "", "mask has 1 entries for 3 completion tokens"),
        ({"behaviour_logprob": [-0.5]}, "", "behaviour_logprob has 1 entries for 3 completion tokens"),
        ({"behaviour_logprob": [-0.5, 0.5, -1.0]}, "", "finite and at most 0"),
        ({"completion_ids": []}, "", "at least one prompt token and one completion token"),
        ({"prompt_ids": [1, "2"]}, ".prompt_ids", 'entry 1 is "2"; token ids are whole numbers'),
        ({"prompt_ids": [2**31]}, ".prompt_ids", "from 0 to 2147483647"),
        ({"prompt_ids": [1, -1]}, ".prompt_ids", "entry 1 is -1; token ids are whole numbers from 0"),
        ({"prompt_ids": [1, True]}, ".prompt_ids", "entry 1 is true"),
        ({"behaviour_logprob": [-0.5, False, -1.0]}, ".behaviour_logprob", "entry 1 is false; numbers or null"),
        ({"id": ""}, ".id", "it has 0 characters; give at least 1"),
        ({"id": "a\nb"}, ".id", "give text without control characters"),
        ({"id": "a" * 513}, ".id", "it has 513 characters; give at most 512"),
        ({"masks": []}, ".masks", "did you mean 'mask'"),
    ],
)
async def test_what_is_wrong_with_one_keeps_no_other_out(
    lease: Lease, sent: Callable[..., Any], rollout: Written, wrong: dict[str, Any], field: str, told: str
) -> None:
    bad = changed(rollout("bad"), **wrong)
    answer = await sent(lease.run_id, changed(rollout("a")), bad, changed(rollout("b")))
    assert answer.status_code == 200
    result = PushResult.model_validate(answer.json())
    assert (result.accepted, result.duplicates) == (2, 0)
    (refused,) = result.refused
    assert (refused.index, refused.status, refused.field) == (1, 422, f"rollouts.1{field}")
    assert told in refused.detail


async def test_another_text_under_a_known_id_is_refused(
    lease: Lease, sent: Callable[..., Any], rollout: Written, worker: WorkerClient
) -> None:
    same, other = changed(rollout("a")), changed(rollout("a"), completion_ids=[5, 4, 3])
    result = PushResult.model_validate((await sent(lease.run_id, same, other, same)).json())
    assert (result.accepted, result.duplicates) == (1, 1)
    (refused,) = result.refused
    assert (refused.index, refused.field) == (1, "rollouts.1.id")
    assert "names another text" in refused.detail
    (kept,) = (await worker.pushed(lease.run_id)).data
    assert kept.model_dump(mode="json") == same


@pytest.mark.parametrize("item", [None, "a rollout", 3, [], {}])
async def test_what_is_no_rollout_at_all_keeps_no_other_out(
    lease: Lease, sent: Callable[..., Any], rollout: Written, item: Any
) -> None:
    result = PushResult.model_validate((await sent(lease.run_id, item, changed(rollout("a")))).json())
    assert (result.accepted, [each.index for each in result.refused]) == (1, [0])


async def test_where_all_are_refused_the_answer_is_a_refusal(
    lease: Lease, sent: Callable[..., Any], rollout: Written, worker: WorkerClient
) -> None:
    answer = await sent(lease.run_id, changed(rollout("a"), mask=[True]), {})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (422, "invalid_input", "rollouts.0")
    assert [error["field"].split(".")[1] for error in problem["errors"]] == ["0", "1"]
    assert (await worker.pushed(lease.run_id)).data == []


async def test_what_the_student_cannot_read_is_refused_once_its_trainer_has_said_so(
    lease: Lease, sent: Callable[..., Any], rollout: Written, worker: WorkerClient
) -> None:
    beyond = changed(rollout("beyond"), completion_ids=[3, 32, 5])
    assert (await sent(lease.run_id, beyond | {"id": "too early"})).json()["accepted"] == 1
    limits = RolloutLimits(vocabulary_size=32, context=6)
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running", limits=limits))
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running"))  # which takes nothing back
    long = changed(rollout("long"), prompt_ids=[1, 2, 3, 4])
    result = PushResult.model_validate(
        (await sent(lease.run_id, beyond, long, changed(rollout("good"), prompt_ids=[1, 2, 31]))).json()
    )
    assert (result.accepted, [each.id for each in result.refused]) == (1, ["beyond", "long"])
    assert [each.detail for each in result.refused] == [
        "rollouts.0.completion_ids: 32 is no token id, those of this run are 0 to 31; "
        "encode the text with the student's tokenizer",
        "rollouts.1.completion_ids: with the prompt it has 7 tokens, over 6, the most that student and teachers of "
        "this run read; cut it",
    ]
    assert [each.id for each in (await worker.pushed(lease.run_id)).data] == ["too early", "good"]
