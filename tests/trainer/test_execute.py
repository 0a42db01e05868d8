"""Every way in which an attempt ends has its exit code, and the run is told its outcome where it still can be."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from event_files import rows
from recording_worker import RecordingWorker, lease
from transformers import AutoModelForCausalLM

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.tokenizer import tokenizer_fingerprint
from tutelage.trainer.execute import lead
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.settings import Settings
from tutelage_client.errors import ProblemResponse, StaleEpoch
from tutelage_client.spec import RunSpec
from tutelage_client.wire import CheckpointView, StepReport, TeacherInfo, TeacherView

SUPERVISED = {"kind": "supervised"}
SAMPLED = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "sampled"}}

Lead = Callable[..., Awaitable[ExitCode]]


@pytest.fixture
def supervised(make_spec: Any, tmp_path: Path) -> Callable[..., RunSpec]:
    """A run that needs no teacher: two steps on a file of completions."""
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": a, "completion": f"{a} b"}) for a in "cdef"))

    def make(**optim: Any) -> RunSpec:
        sections = {"data": {"train": str(data)}, "rollout": {"prompts_per_step": 2}}
        return make_spec(SUPERVISED, **sections, optim={"steps": 2} | optim)

    return make


@pytest.fixture
def leading(tmp_path: Path) -> Lead:
    """One attempt at a run of this spec."""

    async def attempt(worker: RecordingWorker, spec: RunSpec | dict[str, Any], **fields: Any) -> ExitCode:
        wanted = spec if isinstance(spec, dict) else spec.model_dump(mode="json")
        worker.granted = lease(wanted, str(tmp_path / "artefacts"), **fields)
        settings = Settings(redis_url="memory://", name="w")
        return await lead(cast("Any", worker), cast("Any", None), settings, "run-1")

    return attempt


async def test_a_run_that_succeeds_names_its_model(leading: Lead, supervised: Any, worker: RecordingWorker) -> None:
    assert await leading(worker, supervised()) == ExitCode.DONE
    (outcome,) = worker.outcomes
    assert (outcome.result, outcome.error) == ("succeeded", None)
    assert worker.statuses == ["validating", "running", "finalizing"]
    assert outcome.model_path is not None
    AutoModelForCausalLM.from_pretrained(outcome.model_path, local_files_only=True)


async def test_every_row_of_a_run_is_in_tensorboards_file(
    leading: Lead, supervised: Any, worker: RecordingWorker, tmp_path: Path
) -> None:
    assert await leading(worker, supervised()) == ExitCode.DONE
    found = dict(rows(tmp_path / "artefacts"))
    assert list(found) == [row.step for row in worker.steps]
    for row in worker.steps:
        known = {name: value for name, value in row.metrics.items() if value is not None}
        totals = {"student_tokens": row.student_tokens, "teacher_tokens": row.teacher_tokens}
        assert found[row.step] == pytest.approx(known | totals, rel=1e-6)


async def test_what_its_owner_can_mend_fails_the_run(leading: Lead, supervised: Any, worker: RecordingWorker) -> None:
    spec = supervised()
    Path(spec.data.train).write_text('{"prompt": "a"}')
    assert await leading(worker, spec) == ExitCode.USER_ERROR
    (outcome,) = worker.outcomes
    assert outcome.error is not None
    assert (outcome.result, outcome.error.code, outcome.error.category) == ("failed", "invalid_input", "user")
    assert (outcome.error.field, outcome.error.retryable) == ("data.train", False)
    assert 'line 1 has no "completion"' in outcome.error.message


async def test_a_spec_that_this_trainer_cannot_read_fails_the_run(leading: Lead, worker: RecordingWorker) -> None:
    assert await leading(worker, {"name": "x", "unheard_of": 1}) == ExitCode.USER_ERROR
    assert worker.outcomes[0].result == "failed"


async def test_a_run_that_diverges_fails(
    leading: Lead, supervised: Any, worker: RecordingWorker, model_dir: Path, tmp_path: Path
) -> None:
    spoiled = tmp_path / "spoiled"
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, local_files_only=True)
    model.get_input_embeddings().weight.data[27] = torch.inf  # the token "z"
    model.save_pretrained(spoiled)
    for path in model_dir.glob("*token*"):
        (spoiled / path.name).write_bytes(path.read_bytes())
    spec = supervised()
    Path(spec.data.train).write_text('{"prompt": "z", "completion": "a b"}')
    spec = spec.model_copy(update={"student": spec.student.model_copy(update={"model": str(spoiled)})})
    assert await leading(worker, spec) == ExitCode.USER_ERROR
    (outcome,) = worker.outcomes
    assert outcome.error is not None
    assert (outcome.result, outcome.error.code, outcome.error.step) == ("failed", "diverged", 0)


async def test_another_teacher_than_at_the_start_fails_the_run(
    leading: Lead, make_spec: Any, supervised: Any, worker: RecordingWorker, tokenizer: Any
) -> None:
    """A first attempt pauses and leaves a checkpoint; the second finds the name held by other weights."""
    spec = make_spec(SAMPLED, data={"train": supervised().data.train}, optim={"steps": 2})
    engine = FakeEngine(FakeOptions(), "toy")

    def held_by(revision: str) -> dict[str, Any]:
        own = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer), "model_revision": revision}
        provenance = engine.provenance.model_copy(update=own)
        info = TeacherInfo(name="toy", capabilities=engine.capabilities, provenance=provenance)
        view = TeacherView(name="toy", url="http://127.0.0.1:1", info=info, seen_at=datetime.now(UTC), available=True)
        return {"toy": view.model_dump(mode="json")}

    worker.desired = "pause"
    assert await leading(worker, spec, teachers=held_by("first")) == ExitCode.DRAINED
    worker.desired = "run"
    code = await leading(worker, spec, epoch=2, checkpoint=worker.newest, teachers=held_by("second"))
    assert code == ExitCode.TEACHER_LOST
    error = worker.outcomes[-1].error
    assert error is not None
    assert (error.code, error.category) == ("teacher_changed", "teacher")


async def test_a_cancelled_run_is_done(leading: Lead, supervised: Any, worker: RecordingWorker) -> None:
    worker.desired = "cancel"
    assert await leading(worker, supervised()) == ExitCode.DONE
    assert [outcome.result for outcome in worker.outcomes] == ["cancelled"]
    assert worker.commits == []


async def test_a_paused_run_saves_where_it_stands(leading: Lead, supervised: Any, worker: RecordingWorker) -> None:
    worker.desired = "pause"
    assert await leading(worker, supervised()) == ExitCode.DRAINED
    assert [outcome.result for outcome in worker.outcomes] == ["paused"]
    assert [(commit.step, commit.final) for commit in worker.commits] == [(0, False)]


class ReactingWorker(RecordingWorker):
    """Does something when step 1 is reported."""

    def __init__(self, react: Callable[[], object]) -> None:
        super().__init__()
        self.react = react

    async def report_step(self, run_id: str, report: StepReport) -> None:
        await super().report_step(run_id, report)
        if report.step == 1:
            self.react()


async def test_sigterm_pauses_the_run_between_two_steps(leading: Lead, supervised: Any) -> None:
    worker = ReactingWorker(lambda: signal.raise_signal(signal.SIGTERM))
    assert await leading(worker, supervised(steps=50)) == ExitCode.DRAINED
    assert worker.outcomes[-1].result == "paused"
    assert worker.steps[-1].step == worker.commits[-1].step < 50


def throw(error: Exception) -> Callable[[], object]:
    def react() -> object:
        raise error

    return react


async def test_an_attempt_that_a_newer_one_replaced_falls_silent(leading: Lead, supervised: Any) -> None:
    worker = ReactingWorker(throw(StaleEpoch(409, "stale_epoch", "epoch 2 owns the run")))
    assert await leading(worker, supervised()) == ExitCode.FENCED
    assert worker.outcomes == []
    assert worker.commits == []


async def test_whatever_is_not_foreseen_is_a_crash_and_says_so(leading: Lead, supervised: Any) -> None:
    worker = ReactingWorker(throw(RuntimeError("the disk is full\nand more")))
    assert await leading(worker, supervised()) == ExitCode.CRASHED
    (outcome,) = worker.outcomes
    assert outcome.error is not None
    assert (outcome.result, outcome.error.code) == ("crashed", "crashed")
    assert (outcome.error.message, outcome.error.retryable) == ("RuntimeError: the disk is full", True)


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (StaleEpoch(409, "stale_epoch", "epoch 2 owns the run"), ExitCode.FENCED),
        (ProblemResponse(404, "run_not_found", "there is no run run-1"), ExitCode.USER_ERROR),
    ],
    ids=["lease taken", "no such run"],
)
async def test_a_run_that_cannot_be_leased_is_left_alone(
    refusal: Exception, code: ExitCode, leading: Lead, worker: RecordingWorker
) -> None:
    worker.refusal = refusal
    assert await leading(worker, {}) == code
    assert worker.outcomes == []


async def test_a_resumed_run_goes_on_from_its_checkpoint(leading: Lead, supervised: Any) -> None:
    first = ReactingWorker(lambda: signal.raise_signal(signal.SIGTERM))
    assert await leading(first, supervised(steps=4)) == ExitCode.DRAINED
    second, paused = RecordingWorker(), first.newest
    assert isinstance(paused, CheckpointView)
    assert await leading(second, supervised(steps=4), epoch=2, checkpoint=paused) == ExitCode.DONE
    assert [row.step for row in second.steps] == list(range(paused.step + 1, 5))
