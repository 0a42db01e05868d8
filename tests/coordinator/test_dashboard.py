"""The dashboard's pages, for runs in every state, and what guards them."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from dashboard_pages import HOSTILE, series, shown

from tutelage.coordinator.dashboard import history, rendering, words
from tutelage.coordinator.dashboard.charts import ALL
from tutelage.coordinator.db import Database
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import (
    CheckpointCommit,
    EventReport,
    Heartbeat,
    Lease,
    Outcome,
    RunError,
    RunStatus,
    StepReport,
)
from tutelage_client.wire.measures import MEASURES
from tutelage_client.worker import WorkerClient

VENDOR = rendering.HERE / "static" / "vendor"
Spec = Callable[..., dict[str, Any]]


async def report(worker: WorkerClient, lease: Lease, step: int, **metrics: float | None) -> None:
    row = StepReport(
        epoch=lease.epoch, step=step, metrics=dict(metrics), student_tokens=10 * step, teacher_tokens=20 * step
    )
    await worker.report_step(lease.run_id, row)


async def test_without_runs_the_list_says_how_to_submit_one(http: httpx2.AsyncClient) -> None:
    page = await shown(http, "/")
    assert "No run has been submitted" in page.text
    assert "tutelage runs submit" in page.text


async def test_a_queued_run_says_what_it_waits_for(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, spec: Spec
) -> None:
    run = await coordinator.submit(spec())
    listed = await shown(http, "/")
    assert "waits for a trainer to take it" in listed.text
    assert f"/runs/{run.id}" in [link["href"] for link in listed.all("a")]
    page = await shown(http, f"/runs/{run.id}")
    assert "Queued: waits for a trainer to take it" in page.text
    assert "No step has been done yet" in page.text
    plots = [place for place in page.all("div") if "data-chart" in place]
    assert len(plots) == len(ALL)
    assert all("hidden" in place for place in plots), "no empty frames"


async def test_a_running_run_has_charts_with_their_values_in_words(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease
) -> None:
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running", conditions={"queue_available": False}))
    await report(worker, lease, 1, reverse_kl=2.5, seconds=2.0, tokens=100, learn_s=0.5, wait_s=0.25)
    first = await shown(http, "/")
    assert [line["aria-label"] for line in first.all("svg")] == ["reverse KL of the last steps, from 2.5 to 2.5"]
    await report(worker, lease, 2, reverse_kl=1.25, seconds=4.0, tokens=100, learn_s=0.5, wait_s=None, teacher_usd=0.75)
    at = CheckpointCommit(epoch=1, step=2, path="/artefacts/2", weights_sha256="a" * 64)
    await worker.commit_checkpoint(lease.run_id, at)
    page = await shown(http, f"/runs/{lease.run_id}")
    assert "1.25 at step 2, from 2.5 at step 1" in page.text
    assert "the queue is away or full" in page.text
    assert "Teacher tokens 40" in page.text and "0.75 USD" in page.text
    drawn = series(page)
    assert drawn["steps"] == [1, 2]
    assert drawn["columns"]["tokens_per_s"] == [50.0, 25.0]
    assert drawn["columns"]["writing_s"] == [1.25, 3.5]
    assert drawn["marks"] == [{"step": 2, "kind": "checkpoint", "label": "checkpoint at step 2"}]
    assert page.all("header")[1]["data-final"] == "false"
    listed = await shown(http, "/")
    assert [line["aria-label"] for line in listed.all("svg")] == ["reverse KL of the last steps, from 2.5 to 1.25"]


async def test_the_events_of_a_page_are_followed_from_its_last_one(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, lease: Lease
) -> None:
    page = await shown(http, f"/runs/{lease.run_id}")
    newest = (await coordinator.event_page(lease.run_id)).data[-1].id
    assert page.all("header")[1]["data-last-event"] == str(newest)


async def test_a_run_that_succeeded_is_over(http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease) -> None:
    await report(worker, lease, 1, reverse_kl=0.5, accuracy=1.0)
    model = str(Path(lease.artefacts) / "model-e1")
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="succeeded", model_path=model))
    page = await shown(http, f"/runs/{lease.run_id}")
    assert page.all("header")[1]["data-final"] == "true"
    assert "succeeded" in page.text


async def test_a_run_that_failed_tells_why_before_anything_else(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease
) -> None:
    error = RunError(code="bad_data", message="line 3 has no prompt", category="user", field="data.train", attempt=1)
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="failed", error=error))
    page = await shown(http, f"/runs/{lease.run_id}")
    assert page.text.index("line 3 has no prompt") < page.text.index("Student tokens")
    assert "Failed before its first step: bad_data" in page.text
    assert "It ended before its first step." in page.text
    assert words.remedy("user") in page.text
    assert "line 3 has no prompt" in (await shown(http, "/")).text


async def test_another_attempt_is_a_mark_on_the_charts(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease
) -> None:
    await report(worker, lease, 1, reverse_kl=0.5)
    at = CheckpointCommit(epoch=1, step=1, path="/artefacts/1", weights_sha256="a" * 64)
    await worker.commit_checkpoint(lease.run_id, at)
    error = RunError(code="lost", message="gone", category="infra")
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="crashed", error=error))
    again = await worker.lease("w2")
    assert again is not None
    page = await shown(http, f"/runs/{lease.run_id}")
    assert [(mark["step"], mark["kind"]) for mark in series(page)["marks"]] == [
        (1, "checkpoint"),
        (1, "lost"),
        (1, "start"),
    ]
    assert "another attempt at step 1" in page.text


async def test_a_long_run_is_thinned_but_keeps_its_evaluations(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, worker: WorkerClient, pushed_spec: dict[str, Any]
) -> None:
    steps = history.MOST_POINTS + 100
    await coordinator.submit(pushed_spec | {"optim": {"steps": steps}, "eval": {"every": 35}})
    lease = await worker.lease("w1")
    assert lease is not None
    for step in range(1, steps + 1):
        await report(worker, lease, step, loss=1 / step, **({"accuracy": 0.5} if step % 35 == 0 else {}))
    drawn = series(await shown(http, f"/runs/{lease.run_id}"))
    assert len(drawn["steps"]) < steps * 0.6
    assert drawn["steps"][-1] == steps
    assert [value for value in drawn["columns"]["accuracy"] if value is not None] == [0.5] * (steps // 35)


async def test_hostile_text_is_text(http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease) -> None:
    await worker.report_event(lease.run_id, EventReport(epoch=1, type="log", message=HOSTILE))
    await report(worker, lease, 1, **{"loss": 1.0, "</script><script>": 1.0})
    error = RunError(code="bad_data", message=HOSTILE, category="data", field='"><script>')
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="failed", error=error))
    for path in ("/", f"/runs/{lease.run_id}"):
        page = await shown(http, path)
        assert not page.all("img")
        assert "<script>alert(1)</script>" in page.text, "shown as it was written"


async def test_an_unknown_run_is_a_page_that_says_so(http: httpx2.AsyncClient) -> None:
    page = await shown(http, "/runs/%3Cb%3Enone", 404)
    assert "there is no run '<b>none'" in page.text
    assert "/" in [link["href"] for link in page.all("a")]


@pytest.mark.parametrize("path", ["/?after=%3Cscript%3E", "/?after=x~y~z"])
async def test_what_is_no_cursor_is_a_page_that_says_so(http: httpx2.AsyncClient, path: str) -> None:
    assert "is not a cursor of this list" in (await shown(http, path, 422)).text


async def test_the_events_of_a_page_have_an_index_of_their_own(
    http: httpx2.AsyncClient, database: Database, lease: Lease, statements: Callable[[], list[str]]
) -> None:
    """Or a long run's page would look through all of its steps for what is no step."""
    heard = statements()
    await shown(http, f"/runs/{lease.run_id}")
    asked = [each for each in heard if "FROM events" in each]
    assert len(asked) == 2
    assert all("type != 'metrics'" in each for each in asked), "the words of the index"
    if database.engine.dialect.name == "sqlite":
        with database.engine.connect() as connection:
            for each in asked:
                values = tuple("x" for _ in range(each.count("?")))
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {each}", values).fetchall()
                assert "USING INDEX ix_events_told" in str(plan)


async def test_what_the_pages_load_is_there(http: httpx2.AsyncClient) -> None:
    page = await shown(http, "/")
    run_script = ["/static/run.js"]
    for path in [each["src"] for each in page.all("script")] + [each["href"] for each in page.all("link")] + run_script:
        answer = await http.get(str(path))
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
        for imported in re.findall(r'^import .* from "\./(.*)";', answer.text, re.MULTILINE):
            assert (await http.get(f"/static/{imported}")).status_code == 200


def test_every_column_is_a_metric() -> None:
    names = {re.sub(r"/.*", "/BIN", name) for name in history.COLUMNS}
    assert names <= MEASURES.keys()


def test_every_state_that_waits_has_a_reason() -> None:
    told = {status for status in RunStatus if not status.final and status is not RunStatus.RUNNING}
    assert words.WAITS.keys() == told


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (61, "1 min 1 s"), (3600, "1 h"), (3599.6, "1 h"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_vendored_files_are_those_of_the_lock() -> None:
    lock = json.loads((rendering.HERE / "package-lock.json").read_text())
    uplot = lock["packages"]["node_modules/uplot"]
    assert uplot["integrity"].startswith("sha512-")
    assert not re.search(r"https?:", json.dumps(lock)), "no address of a registry"
    sums = dict(line.split()[::-1] for line in (VENDOR / "SHA256SUMS").read_text().splitlines())
    assert sums == {path.name: _sha256(path) for path in VENDOR.iterdir() if path.name != "SHA256SUMS"}
    assert f"(v{uplot['version']})" in (VENDOR / "uPlot.esm.js").read_text()[:500]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_the_pages_need_is_committed() -> None:
    """The wheel takes every file of the package that git knows."""
    listed = subprocess.run(
        ["git", "ls-files", "."], cwd=rendering.HERE, capture_output=True, text=True, check=True
    ).stdout
    kept = {path for path in rendering.HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {str(path.relative_to(rendering.HERE)) for path in kept} == set(listed.split())
