"""`tutelage runs check` holds a run's own record to what is promised, and says what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tutelage_client.history import LearnedStep, note
from tutelage_client.wire import CheckpointCommit, Outcome, RunView, StepReport
from tutelage_client.worker import WorkerClient

Cli = Callable[..., CompletedProcess[str]]
STEPS, ROLLOUTS = 3, 32


@pytest.fixture
def run(cli: Cli, spec: Path) -> RunView:
    return RunView.model_validate_json(cli("runs", "submit", str(spec), "--json").stdout)


def learned(step: int) -> LearnedStep:
    keys = tuple(f"{step}-{row}@" for row in range(ROLLOUTS))
    return LearnedStep(1, step, keys[1:], keys[:1])


def as_it_should(noted: list[LearnedStep]) -> list[LearnedStep]:
    return noted


def training_twice(noted: list[LearnedStep]) -> list[LearnedStep]:
    return [*noted[:-1], replace(noted[-1], trained=(noted[0].trained[0], *noted[-1].trained[1:]))]


def losing_a_rollout(noted: list[LearnedStep]) -> list[LearnedStep]:
    return [*noted[:-1], replace(noted[-1], left_out=())]


def reporting_what_was_not_done(noted: list[LearnedStep]) -> list[LearnedStep]:
    return noted[:-1]


def doing_a_step_twice(noted: list[LearnedStep]) -> list[LearnedStep]:
    return [*noted, noted[-1]]


async def trained(url: str, run_id: str, bug: Callable[[list[LearnedStep]], list[LearnedStep]], sha256: str) -> None:
    """Play a trainer, and keep its record with this bug in it."""
    async with WorkerClient(url) as worker:
        lease = await worker.lease_run(run_id, "tester")
        for each in bug([learned(step) for step in range(1, STEPS + 1)]):
            note(Path(lease.artefacts) / "learned", each)
        for step in range(STEPS + 1):
            await worker.report_step(
                run_id, StepReport(epoch=1, step=step, metrics={}, student_tokens=0, teacher_tokens=0)
            )
        folder = Path(lease.artefacts) / "model"
        folder.mkdir(parents=True)
        commit = CheckpointCommit(epoch=1, step=STEPS, path=str(folder), weights_sha256=sha256)
        await worker.commit_checkpoint(run_id, commit)
        await worker.report_outcome(run_id, Outcome(epoch=1, result="succeeded", model_path=str(folder)))


async def test_a_sound_run_keeps_every_promise(cli: Cli, run: RunView, coordinator_url: str) -> None:
    await trained(coordinator_url, run.id, as_it_should, "a" * 64)
    done = cli("runs", "check", run.id)
    assert done.returncode == 0, done
    first, *promises = done.stdout.splitlines()
    assert first == f"{run.id} is succeeded at step 3"
    assert [line.split()[:2] for line in promises] == [["I1", "holds"], ["I2", "holds"], ["I3", "holds"]]
    assert [line.split()[1] for line in cli("runs", "check", run.id, "--like", run.id).stdout.splitlines()[1:]] == [
        "holds"
    ] * 4


@pytest.mark.parametrize(
    ("bug", "promise", "said"),
    [
        (training_twice, "I2", "1-1@ was learned from in step 1 and in step 3"),
        (doing_a_step_twice, "I2", "epoch 1 learned step 3 2 times"),
        (losing_a_rollout, "I3", "step 3: 32 were submitted, 31 were trained or left out"),
        (reporting_what_was_not_done, "I3", "step 3 of epoch 1 counts, but its attempt never learned it"),
    ],
)
async def test_a_broken_promise_is_named_and_the_exit_code_is_1(
    cli: Cli, run: RunView, coordinator_url: str, bug: Callable[..., list[LearnedStep]], promise: str, said: str
) -> None:
    await trained(coordinator_url, run.id, bug, "a" * 64)
    done = cli("runs", "check", run.id)
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{promise} broken" in done.stdout
    assert said in done.stdout
    told = json.loads(cli("runs", "check", run.id, "--json").stdout)
    assert [each["name"] for each in told["promises"] if not each["holds"]] == [promise]
    assert any(said in violation for each in told["promises"] for violation in each["violations"])


async def test_other_weights_than_those_of_a_like_run_are_told(
    cli: Cli, run: RunView, spec: Path, coordinator_url: str
) -> None:
    other = RunView.model_validate_json(cli("runs", "submit", str(spec), "--json").stdout)
    await trained(coordinator_url, run.id, as_it_should, "a" * 64)
    await trained(coordinator_url, other.id, as_it_should, "b" * 64)
    done = cli("runs", "check", run.id, "--like", other.id)
    assert done.returncode == 1
    assert "the weights at step 3 are not those of the undisturbed run" in done.stdout
