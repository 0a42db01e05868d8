"""What /metrics tells of runs: each series by a run that has it, counters that never fall, no ended run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import httpx2
import pytest
from exposed import ROW, Exposed, fallen, report, scraped
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tutelage.coordinator import runs
from tutelage.coordinator.access import NEEDS
from tutelage.coordinator.db import Database
from tutelage.coordinator.exposition import FLEET, RUNS
from tutelage.coordinator.totals import phases
from tutelage.telemetry import WRITES, CoordinatorMetrics, HttpMetrics, TeacherMetrics
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import StaleEpoch
from tutelage_client.wire import CheckpointCommit, EventReport, Heartbeat, Lease, Outcome, TeacherInfo
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


def checkpoint(epoch: int, step: int) -> CheckpointCommit:
    told = {"weights_sha256": "w", "manifest_sha256": "m", "bytes": 1000 + step, "seconds": 0.5}
    return CheckpointCommit.model_validate({"epoch": epoch, "step": step, "path": f"step-{step}"} | told)


@pytest.fixture
async def lease(
    coordinator: CoordinatorClient, worker: WorkerClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
) -> Lease:
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    await coordinator.submit(taught(optim={"steps": 40}))
    lease = await worker.lease("w1")
    assert lease is not None
    return lease


@pytest.fixture
async def told(http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease) -> Exposed:
    """Of a run at step 7 that has all there is to tell."""
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running", conditions={"queue_available": False}))
    await worker.report_step(lease.run_id, report(1, 7, ROW, tokens=96))
    await worker.commit_checkpoint(lease.run_id, checkpoint(1, 6))
    return await scraped(http)


def test_each_series_of_runs_is_told_of_one_that_has_it(told: Exposed) -> None:
    assert told.names >= RUNS.keys()
    assert not told.names & {"tutelage_queue_up", "tutelage_queue_depth"}, "this coordinator knows no queue"


def test_a_run_is_told_with_its_progress_and_its_last_row(told: Exposed, lease: Lease) -> None:
    run = {"run_id": lease.run_id}
    assert (
        told.value("tutelage_run_info", **run, project="default", student="/models/student", method="divergence") == 1
    )
    statuses = told.about("tutelage_run_status")
    assert [status for status, holds in statuses.items() if holds] == ["running"]
    assert len(statuses) == 9
    assert [told.value(f"tutelage_run_{name}", **run) for name in ("step", "steps", "epoch")] == [7, 40, 1]
    assert told.about("tutelage_run_condition") == {"queue_available": 0}
    about_newest = {"step": 6, "size_bytes": 1006, "duration_seconds": 0.5}
    assert {name: told.value(f"tutelage_run_checkpoint_{name}", **run) for name in about_newest} == about_newest
    assert told.value("tutelage_run_checkpoint_failures_total", **run) == 2
    assert told.about("tutelage_run_rollouts_total") == {
        "trained": 8,
        "stale": 1,
        "dead_lettered": 2,
        "skipped": 3,
        "dropped": 4,
    }
    assert told.about("tutelage_run_phase_seconds_total") == {
        "write": 5,
        "wait": 2,
        "learn": 3,
        "evaluate": 5,
        "checkpoint": 1.5,
    }
    assert told.about("tutelage_train_log_ratio_nats") == {
        "all mean": -0.25,
        "0-15 p10": -2,
        "0-15 p50": -0.5,
        "1024+ p90": 0.125,
    }
    assert told.about("tutelage_train_reverse_kl_nats") == {"mean": 0.25, "p10": -0.5, "p90": 1.75, "max": 6}
    assert told.about("tutelage_train_entropy_nats") == {"student": 1.5, "teacher": 1}
    assert told.about("tutelage_run_tokens_total") == {"prompt": 40, "response": 96, "trained": 90}
    assert told.about("tutelage_run_rollouts_at_lag_total") == {"0": 5, "3": 4}
    assert told.value("tutelage_run_teacher_tokens_total", **run) == 960
    assert told.value("tutelage_teacher_available", teacher="walker") == 1


async def test_times_are_those_of_the_database(told: Exposed, lease: Lease, database: Database) -> None:
    """All three lie between the run's begin and now, by its clock, which is not the one of this process."""
    with database.read() as session:
        begun_s = runs.find(session, lease.run_id).created_at
    for what in ("heartbeat", "reported", "checkpoint"):
        at_s = told.value(f"tutelage_run_{what}_timestamp_seconds", run_id=lease.run_id)
        assert at_s is not None
        assert begun_s - 0.1 <= at_s < begun_s + 60


async def test_what_was_not_measured_is_not_told(http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease) -> None:
    before = await scraped(http)
    assert not {name for name in before.names if name.startswith("tutelage_train_")}
    assert before.value("tutelage_run_teacher_cost_usd_total", run_id=lease.run_id) is None
    await worker.report_step(lease.run_id, report(1, 1, {"loss": None, "grad_norm": 2.0, "accuracy": 0.5}))
    await worker.report_step(lease.run_id, report(1, 2, {"loss": 1.0, "grad_norm": None}))
    after = await scraped(http)
    assert {name for name in after.names if name.startswith("tutelage_train_")} == {
        "tutelage_train_loss",
        "tutelage_train_accuracy",
    }
    assert after.value("tutelage_run_nonfinite_steps_total", run_id=lease.run_id) == 2


async def test_series_of_an_ended_run_vanish(
    http: httpx2.AsyncClient, worker: WorkerClient, told: Exposed, lease: Lease
):
    assert told.value("tutelage_runs", status="running") == 1
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="succeeded"))
    after = await scraped(http)
    assert not after.names & RUNS.keys()
    assert (after.value("tutelage_runs", status="running"), after.value("tutelage_runs", status="succeeded")) == (0, 1)


async def test_a_run_that_nobody_holds_has_no_heartbeat(http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease):
    await worker.heartbeat(lease.run_id, Heartbeat(epoch=1, status="running", conditions={"queue_available": True}))
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="crashed"))
    after = await scraped(http)
    held = {"tutelage_run_heartbeat_timestamp_seconds", "tutelage_run_condition"}
    assert not after.names & held
    assert after.value("tutelage_run_status", run_id=lease.run_id, status="queued") == 1


async def test_counters_never_fall_over_a_resume_and_count_what_was_done_twice(
    http: httpx2.AsyncClient, worker: WorkerClient, coordinator: CoordinatorClient, lease: Lease
) -> None:
    scrapes = [await scraped(http)]

    async def learn(epoch: int, steps: Iterable[int], again: int = 1) -> None:
        for step in steps:
            done = {"seconds": 4.0, "learn_s": 1.0, "wait_s": 1.0, "eval_s": 0.5, "teacher_usd": 0.5 * step}
            done |= {"checkpoint_s": 0.25, "checkpoint_failures": 1.0, "tokens": 7.0}
            done[f"rollouts_at_lag/{step % 2}"] = 8.0
            fates = {"rollouts/submitted": 8.0 * step, "rollouts/trained": 6.0 * step, "rollouts/stale": 2.0 * step}
            for _ in range(again):  # the second time as if the first answer had been lost
                await worker.report_step(lease.run_id, report(epoch, step, done | fates, tokens=step))
                scrapes.append(await scraped(http))

    await learn(1, range(5), again=2)
    await worker.commit_checkpoint(lease.run_id, checkpoint(1, 2))
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="crashed"))
    await worker.lease_run(lease.run_id, "w2")
    await learn(2, range(3, 7))
    await worker.commit_checkpoint(lease.run_id, checkpoint(2, 6))
    scrapes.append(await scraped(http))

    assert fallen(scrapes) == set()
    assert "tutelage_run_rollouts_total" in fallen(scrapes[::-1]), "as the same would find"
    run, last = {"run_id": lease.run_id}, scrapes[-1]
    assert (await coordinator.run(lease.run_id)).teacher_tokens == 60, "of the steps that count"
    assert last.value("tutelage_run_teacher_tokens_total", **run) == 80, "steps 3 and 4 were done twice"
    assert last.value("tutelage_run_teacher_cost_usd_total", **run) == 4
    assert last.about("tutelage_run_rollouts_total") == {
        "trained": 48,
        "stale": 16,
        "dead_lettered": 0,
        "skipped": 0,
        "dropped": 0,
    }
    assert last.about("tutelage_run_phase_seconds_total") == {
        "write": 18,
        "wait": 9,
        "learn": 9,
        "evaluate": 4.5,
        "checkpoint": 2.25,
    }
    assert last.about("tutelage_run_tokens_total")["response"] == 63
    assert last.about("tutelage_run_rollouts_at_lag_total") == {"0": 40, "1": 32}, "rows of steps 0 to 4, then 3 to 6"
    assert last.value("tutelage_run_checkpoint_failures_total", **run) == 9, "each row tells those since the one before"
    assert last.value("tutelage_run_crashes_total", **run) == 1, "a new checkpoint forgives it, and takes nothing back"


seconds = st.floats(0, 1e6)


@given(seconds, st.none() | seconds, seconds, seconds, seconds)
def test_phases_are_disjoint_parts_of_a_step_and_of_what_goes_by_beside_it(
    marked_s: float, wait_s: float | None, learn_s: float, eval_s: float, checkpoint_s: float
) -> None:
    beside = {"eval_s": eval_s, "checkpoint_s": checkpoint_s}
    parts = phases({"seconds": marked_s + learn_s, "wait_s": wait_s, "learn_s": learn_s} | beside)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(marked_s + learn_s + eval_s + checkpoint_s)


def test_the_first_evaluation_of_a_run_is_no_part_of_a_step() -> None:
    assert phases({"eval_s": 2.5}) == {"seconds/evaluate": 2.5, "seconds/checkpoint": 0}


async def test_writes_of_an_attempt_that_lost_the_run_are_counted(
    http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease
) -> None:
    before = (await scraped(http)).about("tutelage_fenced_writes_total")
    other = 2
    for call in (
        worker.report_step(lease.run_id, report(other, 1, {})),
        worker.heartbeat(lease.run_id, Heartbeat(epoch=other, status="running", conditions={})),
        worker.commit_checkpoint(lease.run_id, checkpoint(other, 1)),
        worker.report_event(lease.run_id, EventReport(epoch=other, type="log", message="m")),
        worker.report_outcome(lease.run_id, Outcome(epoch=other, result="failed")),
        worker.lease_run(lease.run_id, "w2", other),
    ):
        with pytest.raises(StaleEpoch):
            await call
    after = (await scraped(http)).about("tutelage_fenced_writes_total")
    assert {what: after[what] - before[what] for what in after} == dict.fromkeys(WRITES, 1)
    writes = [name for name in NEEDS if name.startswith("POST /internal/v1/runs/")]
    assert {name.rpartition("/")[2] for name in writes} == set(WRITES)


def families() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Type, labels and help of all that a service exports, by its name."""
    found = {name: (each.kind, each.labels, each.meaning) for name, each in (RUNS | FLEET).items()}
    registry = CollectorRegistry()
    for metrics in (HttpMetrics, TeacherMetrics, CoordinatorMetrics):
        counted = metrics.of(registry)
        for field in metrics.__dataclass_fields__:
            collector = getattr(counted, field)
            [described] = collector.describe()
            name = described.name + ("_total" if described.type == "counter" else "")
            found[name] = (described.type, collector._labelnames, described.documentation)
    return found


def test_every_series_is_named_as_promtool_wants_it() -> None:
    """Its rules (promlint), and those of the guide: base units, and no label that grows with the work."""
    for name, (kind, labels, meaning) in families().items():
        assert re.fullmatch(r"tutelage_[a-z0-9_]+", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert (
            kind == "histogram"
            or not name.endswith(("_count", "_sum", "_bucket", "_info"))
            or name.endswith("run_info")
        )
        assert not re.search(r"milli|micro|_ms\b|minute|hour|percent|kilo|mega|_kb\b|_mb\b|gauge|counter", name), name
        assert meaning, name
        assert not {"le", "quantile"} & set(labels), name
        for label in labels:
            assert re.fullmatch(r"[a-z_]+", label), name
            assert not re.search(r"prompt|token|rollout|request|trace", label), name
