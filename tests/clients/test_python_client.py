"""The client for people: handles that are awaited, and the same without awaiting, against real services."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tutelage_client import aio, sync
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput, ProblemResponse, ServiceUnreachable
from tutelage_client.http import RetryPolicy
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import Outcome, RunChanges, RunStatus, ScoreRequest, StepReport, TeacherInfo
from tutelage_client.worker import WorkerClient

NOWHERE = "http://127.0.0.1:9"
QUICK = RetryPolicy(deadline_s=0.05)
TABLES: dict[str, Any] = {
    "name": "by-tables",
    "student": {"model": "/models/student"},
    "data": {"train": "/data/prompts.jsonl"},
    "objective": {"kind": "constant_penalty"},
}
FACES = [
    (aio.Tutelage, sync.Tutelage),
    (aio.Run, sync.Run),
    (aio.Runs, sync.Runs),
    (aio.Files, sync.Files),
    (aio.Keys, sync.Keys),
    (aio.Teachers, sync.Teachers),
    (TeacherClient, sync.Teacher),
]
NOT_ASKED = {"hints", "timeout_s", "close", "id"}  # of a client: how it is set up and ended; of a handle: what it is of


async def trained(url: str, run_id: str) -> None:
    """Play the trainer of a run of two steps that ends well and leaves a model."""
    async with WorkerClient(url) as worker:
        lease = await worker.lease_run(run_id, "tester")
        for step in (1, 2):
            metrics: dict[str, float | None] = {"reverse_kl": 1.0 / step}
            report = StepReport(epoch=1, step=step, metrics=metrics, student_tokens=10 * step, teacher_tokens=7)
            await worker.report_step(run_id, report)
        folder = Path(lease.artefacts) / "model"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(bytes(2000))
        await worker.report_outcome(run_id, Outcome(epoch=1, result="succeeded", model_path=str(folder)))


async def test_a_run_is_submitted_from_a_file_followed_and_fetched(
    coordinator_url: str, spec: Path, tmp_path: Path
) -> None:
    async with aio.Tutelage(coordinator_url) as client:
        run = await client.runs.submit(spec)
        assert (await run.view()).spec["student"]["model"] == str(spec.parent / "student"), "relative to the file"
        waiting = asyncio.create_task(run.wait())
        await trained(coordinator_url, run.id)
        ended = await waiting
        assert (ended.status, ended.step) == (RunStatus.SUCCEEDED, 2)
        seen = [event async for event in run.events()]
        assert seen == await run.past_events()
        assert [event.data["reverse_kl"] for event in seen if event.type == "metrics"] == [1.0, 0.5]
        assert [row["reverse_kl"] for row in await run.metrics()] == [1.0, 0.5]
        assert await run.rollouts() == []
        assert ((await run.model(tmp_path / "model")) / "weights").read_bytes() == bytes(2000)


async def test_a_run_is_steered_renamed_and_found_among_the_others(coordinator_url: str) -> None:
    async with aio.Tutelage(coordinator_url) as client:
        run = await client.runs.submit(TABLES)
        again = client.run(run.id)
        assert repr(again) == f"Run('{run.id}')"
        assert (await again.pause()).status is RunStatus.PAUSED
        assert (await again.resume()).status is RunStatus.QUEUED
        assert (await again.change(RunChanges(note="the one to beat"))).note == "the one to beat"
        assert (await again.cancel()).status is RunStatus.CANCELLED
        assert run.id in [view.id async for view in client.runs.all(status=RunStatus.CANCELLED)]
        with pytest.raises(ProblemResponse, match="no committed checkpoint"):
            await run.fork(spec={"optim": {"lr": 1e-5}})


async def test_all_runs_come_whatever_a_page_holds(coordinator_url: str) -> None:
    async with aio.Tutelage(coordinator_url) as client:
        made = [(await client.runs.submit(TABLES | {"name": f"n{number}"})).id for number in range(52)]
        listed = [view.id async for view in client.runs.all()]
        assert listed[:52] == made[::-1], "more than a page of them"


async def test_a_repeated_submission_is_the_same_run(coordinator_url: str) -> None:
    async with aio.Tutelage(coordinator_url) as client:
        runs = [await client.runs.submit(TABLES, idempotency_key="once") for _ in range(2)]
        assert runs[0].id == runs[1].id


async def test_without_awaiting_it_works_where_a_loop_runs_already(
    coordinator_url: str, spec: Path, tmp_path: Path
) -> None:
    """As in a notebook, whose cells run inside of a loop."""
    with sync.Tutelage(coordinator_url) as client:
        prompts = client.files.upload(b'{"prompt": "1+1:"}\n', "prompts.jsonl")
        assert client.files.download(prompts.id, tmp_path / "copy").read_bytes() == b'{"prompt": "1+1:"}\n'
        run = client.runs.submit(str(spec))
        await trained(coordinator_url, run.id)
        assert run.wait().status is RunStatus.SUCCEEDED
        assert [event.type for event in run.events()].count("metrics") == 2
        assert next(run.events()).type == "state", "the rest may be left"
        assert next(client.runs.all()).id == run.id
        assert (client.run(run.id).model(tmp_path / "model") / "weights").is_file()


async def test_a_teacher_is_asked_by_its_name(coordinator_url: str, teacher_url: str) -> None:
    async with TeacherClient(teacher_url) as teacher, CoordinatorClient(coordinator_url) as coordinator:
        await coordinator.register_teacher("walker", teacher_url, await teacher.info())
    asked = ScoreRequest.of([1, 2, 3, 4], start=2, top_k=3, entropy=True)
    async with aio.Tutelage(coordinator_url) as client:
        (block,) = (await (await client.teachers.connect("walker")).score(asked)).scores
        with pytest.raises(InvalidInput, match=r"there is no teacher 'baker'; registered are: .*walker"):
            await client.teachers.connect("baker")
    assert (block.start, block.rows) == (2, 2)
    found = block.arrays()
    assert (found["topk_ids"].shape, found["entropy"].dtype) == ((2, 3), np.float32)
    assert (found["sampled_logprob"] < 0).all()
    with sync.Tutelage(coordinator_url) as client:
        (again,) = client.teachers.connect("walker").score(asked).scores
    np.testing.assert_array_equal(again.arrays()["topk_logprob"], found["topk_logprob"])


async def test_a_teacher_never_sees_the_coordinators_key(
    coordinator_url: str, teacher_url: str, gateway: Callable[[str | None, dict[str, Any]], str]
) -> None:
    """It could be anybody's who may register one. What it is sent is the key that is given for it."""
    async with TeacherClient(teacher_url) as teacher:
        info: TeacherInfo = (await teacher.info()).model_copy(update={"name": "guarded"})
    door = gateway("secret", {"/v1/teacher": info.model_dump(mode="json")})
    async with CoordinatorClient(coordinator_url) as coordinator:
        await coordinator.register_teacher("guarded", door, info)
        async with aio.Tutelage(coordinator_url, key="secret") as client:
            with pytest.raises(ProblemResponse) as refused:
                await (await client.teachers.connect("guarded")).info()
            assert refused.value.status == 401
            assert await (await client.teachers.connect("guarded", key="secret")).info() == info


@pytest.mark.parametrize(("awaited", "waiting"), FACES, ids=lambda each: each.__name__)
def test_both_faces_have_the_same_names(awaited: type, waiting: type) -> None:
    names = {name for name in dir(awaited) if not name.startswith("_")} - NOT_ASKED
    assert {name for name in dir(waiting) if not name.startswith("_")} - NOT_ASKED == names


def test_errors_say_what_helps(monkeypatch: pytest.MonkeyPatch, coordinator_url: str, tmp_path: Path) -> None:
    monkeypatch.delenv("TUTELAGE_COORDINATOR", raising=False)
    monkeypatch.chdir(tmp_path)
    with sync.Tutelage(NOWHERE, retry=QUICK) as client, pytest.raises(ServiceUnreachable) as nobody:
        client.runs.page()
    assert "start one with `tutelage up`, or say where it is" in nobody.value.__notes__[0]
    with sync.Tutelage(coordinator_url) as client, pytest.raises(ProblemResponse) as refused:
        client.runs.submit(TABLES | {"optim": {"stepz": 3}})
    assert "did you mean 'steps'?" in str(refused.value)
    with pytest.raises(InvalidInput, match="'elsewhere' is not an http"):
        sync.Tutelage("elsewhere")


def test_a_refused_key_says_where_one_is_given(gateway: Callable[[str | None, dict[str, Any]], str]) -> None:
    with sync.Tutelage(gateway("secret", {}), key="another") as client, pytest.raises(ProblemResponse) as refused:
        client.runs.page()
    assert "TUTELAGE_KEY_FILE" in refused.value.__notes__[0]


def test_a_closed_client_says_so_and_leaves_no_thread(coordinator_url: str) -> None:
    before = set(threading.enumerate())
    client = sync.Tutelage(coordinator_url)
    assert set(threading.enumerate()) - before
    left = client.run("run-1").events()
    client.close()
    client.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(InvalidInput, match="this client is closed"):
        client.runs.page()
    with pytest.raises(InvalidInput, match="this client is closed"):
        next(left)


def test_ctrl_c_ends_the_waiting_and_the_client_goes_on() -> None:
    """The service never answers the first call: the caller is interrupted in the middle of it."""
    asked: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        if len(asked) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        return httpx2.Response(200, json={"data": [], "next": None})

    with sync.Tutelage("http://coordinator", transport=httpx2.MockTransport(answer)) as client:
        with pytest.raises(KeyboardInterrupt):
            list(client.runs.all())
        assert list(client.runs.all()) == []
