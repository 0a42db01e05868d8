"""A run that begins at a checkpoint of another one, as the coordinator keeps it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tutelage.coordinator.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import CheckpointCommit, Lease, Outcome, RunError, RunStatus, RunView, TeacherInfo
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]
Train = Callable[..., Awaitable[Lease]]
WEIGHTS = b"weights of step %d"


def saved(folder: Path, step: int) -> str:
    """A checkpoint as a trainer leaves it; the hash of its manifest."""
    (folder / "model").mkdir(parents=True)
    content = WEIGHTS % step
    (folder / "model" / "model.safetensors").write_bytes(content)
    told = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    manifest = json.dumps({"step": step, "epoch": 1, "files": {"model/model.safetensors": told}})
    (folder / "manifest.json").write_text(manifest)
    return hashlib.sha256(manifest.encode()).hexdigest()


@pytest.fixture
def trained(coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec) -> Train:
    """A run that is executed and has committed checkpoints of these steps."""

    async def train(*steps: int, body: dict[str, Any] | None = None) -> Lease:
        run = await coordinator.submit(body or spec())
        lease = await worker.lease_run(run.id, "trainer")
        for step in steps:
            folder = Path(lease.artefacts) / "checkpoints" / f"step-{step:08d}-e1"
            manifest = saved(folder, step)
            commit = CheckpointCommit(
                epoch=1, step=step, path=str(folder), weights_sha256=f"{step:064d}", manifest_sha256=manifest
            )
            await worker.commit_checkpoint(run.id, commit)
        return lease

    return train


async def messages(coordinator: CoordinatorClient, run_id: str) -> list[str]:
    return [event.message for event in (await coordinator.event_page(run_id)).data]


async def test_a_fork_begins_at_the_newest_checkpoint_with_settings_changed(
    coordinator: CoordinatorClient, worker: WorkerClient, trained: Train
) -> None:
    parent = await trained(10, 20)
    fork = await coordinator.fork(parent.run_id, spec={"name": "again", "optim": {"lr": 1e-5}})
    assert (fork.status, fork.name, fork.step, fork.steps, fork.epoch) == (RunStatus.QUEUED, "again", 20, 100, 0)
    assert fork.forked_from is not None
    assert (fork.forked_from.run_id, fork.forked_from.step) == (parent.run_id, 20)
    assert fork.forked_from.changed == ["name", "optim.lr"]
    assert fork.spec == parent.spec | {"name": "again", "optim": parent.spec["optim"] | {"lr": 1e-5}}
    assert await coordinator.run(fork.id) == fork
    assert f"{fork.id} begins at step 20 of this run" in await messages(coordinator, parent.run_id)
    assert f"begins at step 20 of {parent.run_id}" in await messages(coordinator, fork.id)
    lease = await worker.lease_run(fork.id, "other trainer")
    assert lease.forked_from == fork.forked_from
    assert lease.checkpoint is not None
    assert (lease.checkpoint.step, lease.checkpoint.epoch, lease.epoch) == (20, 0, 1)
    assert (await coordinator.run(fork.id)).step == 20
    assert (await coordinator.run(parent.run_id)).forked_from is None


async def test_the_files_of_a_fork_outlive_those_of_the_other_run(
    coordinator: CoordinatorClient, trained: Train, settings: Settings
) -> None:
    parent = await trained(10, 20)
    fork = await coordinator.fork(parent.run_id, step=10)
    (own,) = await coordinator.checkpoints(fork.id)
    assert Path(own.path).is_relative_to(settings.artefacts(fork.id) / "checkpoints")
    weights = Path("model") / "model.safetensors"
    theirs = Path(parent.artefacts) / "checkpoints" / "step-00000010-e1"
    assert (Path(own.path) / weights).samefile(theirs / weights), "linked, not copied"
    shutil.rmtree(parent.artefacts)
    assert (Path(own.path) / weights).read_bytes() == WEIGHTS % 10
    assert hashlib.sha256((Path(own.path) / "manifest.json").read_bytes()).hexdigest() == own.manifest_sha256
    again = await coordinator.fork(fork.id)
    assert again.forked_from is not None and (again.forked_from.run_id, again.step) == (fork.id, 10)


async def test_the_same_key_and_request_give_the_same_fork(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, trained: Train
) -> None:
    parent = await trained(10)
    url, key = f"/v1/runs/{parent.run_id}/fork", {"Idempotency-Key": "one"}
    first = await http.post(url, json={"spec": {"seed": 7}}, headers=key)
    repeated = await http.post(url, json={"spec": {"seed": 7}}, headers=key)
    assert (first.status_code, repeated.status_code) == (201, 200)
    assert first.json()["id"] == repeated.json()["id"]
    other = await http.post(url, json={"spec": {"seed": 8}}, headers=key)
    submitted = await http.post("/v1/runs", json=parent.spec, headers=key)
    for refused in (other, submitted):
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    bare = await http.post(url)
    assert bare.status_code == 201 and bare.json()["id"] != first.json()["id"]
    assert len((await coordinator.runs()).data) == 3


REFUSED: dict[str, tuple[dict[str, Any], int, str, str | None, str]] = {
    "a step that was not committed": ({"step": 15}, 404, "checkpoint_not_found", "step", "lists those it has"),
    "another student": (
        {"spec": {"student": {"model": "/models/other"}}},
        422,
        "setting_is_fixed",
        "student.model",
        "submit a new run",
    ),
    "adapters in place of all weights": (
        {"spec": {"student": {"lora": {"rank": 4}}}},
        422,
        "setting_is_fixed",
        "student.lora",
        "submit a new run",
    ),
    "no step left": ({"spec": {"optim": {"steps": 20}}}, 422, "invalid_input", "optim.steps", "above that"),
    "a key that is not known": ({"spec": {"optim": {"lrr": 1}}}, 422, "invalid_input", "optim.lrr", "'lr'"),
    "a place that a list does not have": (
        {"spec": {"teachers": {"0": {"patience_s": 5}}}},
        422,
        "invalid_input",
        "teachers.0",
        "it is empty",
    ),
    "a teacher that is not known": (
        {"spec": {"teachers": [{"name": "nobody"}], "objective": {"kind": "divergence"}}},
        422,
        "unknown_teacher",
        "teachers.0.name",
        "registered are none",
    ),
    "a relative path": ({"spec": {"data": {"train": "p.jsonl"}}}, 422, "invalid_input", "data.train", "absolute"),
    "a key of the request": ({"stepp": 1}, 422, "invalid_input", "stepp", "'step'"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_fork_that_cannot_work_is_refused_and_leaves_nothing(
    case: str, http: httpx2.AsyncClient, trained: Train, settings: Settings
) -> None:
    body, status, code, field, said = REFUSED[case]
    parent = await trained(10, 20)
    answer = await http.post(f"/v1/runs/{parent.run_id}/fork", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem.get("field")) == (status, code, field)
    assert said in problem["detail"]
    await _nothing_else(http, parent.run_id, settings)


async def _nothing_else(http: httpx2.AsyncClient, run_id: str, settings: Settings) -> None:
    assert [run["id"] for run in (await http.get("/v1/runs")).json()["data"]] == [run_id]
    assert [path.name for path in settings.artefacts(run_id).parent.iterdir()] == [run_id]


async def test_the_list_says_at_which_checkpoints_a_fork_can_begin(
    coordinator: CoordinatorClient, trained: Train
) -> None:
    parent = await trained(10, 20)
    shutil.rmtree(Path(parent.artefacts) / "checkpoints" / "step-00000010-e1")
    assert [(each.step, each.kept) for each in await coordinator.checkpoints(parent.run_id)] == [
        (10, False),
        (20, True),
    ]


@pytest.mark.parametrize("harm", ["gone", "cut", "another manifest"])
async def test_a_checkpoint_whose_files_are_not_whole_is_refused(
    harm: str, http: httpx2.AsyncClient, trained: Train, settings: Settings
) -> None:
    parent = await trained(10)
    folder = Path(parent.artefacts) / "checkpoints" / "step-00000010-e1"
    if harm == "gone":
        shutil.rmtree(folder)
    elif harm == "cut":
        (folder / "model" / "model.safetensors").write_bytes(b"w")
    else:
        (folder / "manifest.json").write_text('{"files": {}}')
    answer = await http.post(f"/v1/runs/{parent.run_id}/fork")
    assert (answer.status_code, answer.json()["code"]) == (404, "checkpoint_missing"), answer.text
    told = answer.json()["detail"]
    assert f"step 10 of {parent.run_id}" in told and "take a newer step" in told
    assert str(settings.data_dir) not in answer.text and "Errno" not in answer.text
    await _nothing_else(http, parent.run_id, settings)


async def test_a_checkpoint_outside_the_artefacts_of_its_run_is_refused(
    http: httpx2.AsyncClient, worker: WorkerClient, trained: Train, tmp_path: Path
) -> None:
    parent = await trained()
    manifest = saved(tmp_path / "elsewhere", 5)
    commit = CheckpointCommit(
        epoch=1, step=5, path=str(tmp_path / "elsewhere"), weights_sha256="0" * 64, manifest_sha256=manifest
    )
    await worker.commit_checkpoint(parent.run_id, commit)
    answer = await http.post(f"/v1/runs/{parent.run_id}/fork")
    assert (answer.status_code, answer.json()["code"]) == (404, "checkpoint_missing")


async def test_a_run_without_a_checkpoint_and_one_that_is_not_there_have_no_fork(
    coordinator: CoordinatorClient, spec: Spec
) -> None:
    run = await coordinator.submit(spec())
    for run_id, code in ((run.id, "checkpoint_not_found"), ("run-nothere", "run_not_found")):
        with pytest.raises(ProblemResponse) as refused:
            await coordinator.fork(run_id)
        assert (refused.value.status, refused.value.code) == (404, code)


async def test_a_run_that_failed_by_its_outage_budget_is_continued_with_a_larger_one(
    coordinator: CoordinatorClient,
    worker: WorkerClient,
    trained: Train,
    taught: Spec,
    teacher_info: Callable[..., TeacherInfo],
) -> None:
    await coordinator.register_teacher("walker", "http://127.0.0.1:1", teacher_info())
    teacher = {"name": "walker", "outage_budget_s": 60.0}
    parent = await trained(10, body=taught() | {"teachers": [teacher]})
    lost = RunError(code="teacher_outage", message="no answer for 60 s", category="teacher")
    await worker.report_outcome(parent.run_id, Outcome(epoch=1, result="failed", error=lost))
    failed = await coordinator.run(parent.run_id)
    assert failed.status is RunStatus.FAILED
    fork: RunView = await coordinator.fork(parent.run_id, spec={"teachers": {"0": {"outage_budget_s": 600.0}}})
    assert (fork.status, fork.error, fork.step) == (RunStatus.QUEUED, None, 10)
    assert fork.spec["teachers"] == [failed.spec["teachers"][0] | {"outage_budget_s": 600.0}]
    assert fork.forked_from is not None and fork.forked_from.changed == ["teachers.0.outage_budget_s"]
    assert (await worker.lease_run(fork.id, "trainer")).checkpoint is not None
