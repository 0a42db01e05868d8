"""`tutelage runs export` writes what there is of a run, and `runs edit` what its owner says of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from pyarrow import parquet
from safetensors.numpy import load_file, save_file

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import Heartbeat, Outcome, Provenance, Rollout, RolloutSample, RunView, StepReport
from tutelage_client.worker import WorkerClient

Cli = Callable[..., CompletedProcess[str]]
WEIGHTS = {"w": np.arange(6, dtype=np.float32)}


@pytest.fixture
def run(cli: Cli, spec: Path) -> RunView:
    return RunView.model_validate_json(cli("runs", "submit", str(spec), "--json").stdout)


def shown(step: int) -> Rollout:
    text = {"prompt_ids": [1, 2], "completion_ids": [3, 4], "mask": [True, True], "behaviour_logprob": [-0.5, -1.0]}
    return Rollout.model_validate({"id": f"r{step}", "source": "student", "policy_version": step} | text)


async def trained(
    url: str, run_id: str, *, well: bool = True, teachers: dict[str, Provenance] | None = None, **metrics: float
) -> None:
    """Play a trainer: three steps, of which the last two are evaluated, and a model where it ends well.

    teachers: whom it told to have found; metrics: of every row, beside those that change
    """
    async with WorkerClient(url) as worker:
        lease = await worker.lease_run(run_id, "tester")
        await worker.heartbeat(run_id, Heartbeat(epoch=1, status="running", teachers=teachers))
        for step in range(3):
            row: dict[str, float | None] = {"loss": 2.0 / (step + 1), "lag": None, **metrics}
            row |= {"accuracy": 0.25 * step} if step else {}
            report = StepReport(
                epoch=1,
                step=step,
                metrics=row,
                student_tokens=1000 * step,
                teacher_tokens=2000 * step,
                rollouts=[shown(step)],
            )
            await worker.report_step(run_id, report)
        folder = Path(lease.artefacts) / "model"
        folder.mkdir(parents=True)
        save_file(WEIGHTS, folder / "model.safetensors")
        path = str(folder) if well else None
        await worker.report_outcome(run_id, Outcome(epoch=1, result="succeeded" if well else "failed", model_path=path))


async def test_everything_of_a_run_is_in_the_folder(
    cli: Cli, run: RunView, coordinator_url: str, tmp_path: Path
) -> None:
    await trained(coordinator_url, run.id)
    done = cli("runs", "export", run.id, "--out", "exported")
    assert done.stdout == (f"{run.id} is in exported: metrics.parquet, model, rollouts.jsonl, run.json, spec.json\n"), (
        done.stderr
    )
    folder = tmp_path / "exported"
    assert RunView.model_validate_json((folder / "run.json").read_text()).status == "succeeded"
    assert json.loads((folder / "spec.json").read_text()) == run.spec
    table = parquet.read_table(folder / "metrics.parquet")
    assert table.to_pydict() == {
        "step": [0, 1, 2],
        "epoch": [1, 1, 1],
        "student_tokens": [0, 1000, 2000],
        "teacher_tokens": [0, 2000, 4000],
        "loss": [2.0, 1.0, 2.0 / 3],
        "lag": [None, None, None],
        "accuracy": [None, 0.25, 0.5],
    }
    assert {str(kind) for kind in table.schema.types} == {"int64", "double"}
    lines = (folder / "rollouts.jsonl").read_text().splitlines()
    assert [RolloutSample.model_validate_json(line).rollout.id for line in lines] == ["r0", "r1", "r2"]
    np.testing.assert_array_equal(load_file(folder / "model" / "model.safetensors")["w"], WEIGHTS["w"])


async def test_the_card_says_who_taught_it_how_on_what_for_how_much_and_what_came_of_it(
    cli: Cli, spec: Path, coordinator_url: str, teacher_url: str, tmp_path: Path
) -> None:
    async with TeacherClient(teacher_url) as teacher, CoordinatorClient(coordinator_url) as coordinator:
        info = await teacher.info()
        for name in ("walker", "unknown"):
            await coordinator.register_teacher(name, teacher_url, info.model_copy(update={"name": name}))
        taught = spec.read_text().replace('"constant_penalty"', '"divergence"\nsupport = { kind = "sampled" }')
        teachers = '[[teachers]]\nname = "walker"\n[[teachers]]\nname = "unknown"\ntags = ["t"]\n'
        spec.write_text(taught + teachers + "[budget]\nteacher_tokens = 5000\nteacher_usd = 0.5\n")
        run = RunView.model_validate_json(cli("runs", "submit", str(spec), "--json").stdout)
        who = info.provenance
        await trained(coordinator_url, run.id, teachers={"walker": who}, teacher_usd=0.25)
        other = who.model_copy(update={"model": "another", "model_revision": "later"})
        another = info.model_copy(update={"name": "walker", "provenance": other})
        await coordinator.register_teacher("walker", teacher_url, another)
    assert cli("runs", "export", run.id, "--out", "exported").returncode == 0
    card = (tmp_path / "exported" / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "another" not in card
    for said in (
        f"after 2 steps of the run `{run.id}`",
        f"- walker: `{who.model}`, revision `{who.model_revision}`",
        "- unknown: which model it was is not known",
        "- objective: divergence, reverse_kl, sampled support",
        f"- train: `{tmp_path / 'prompts.jsonl'}`",
        "- teacher tokens: 4,000 of at most 5,000",
        "- teacher cost in USD: 0.2500 of at most 0.5000",
        "| accuracy | 0.25 (step 1) | 0.5 (step 2) |",
        "| loss | 2 (step 0) | 0.6667 (step 2) |",
    ):
        assert said in card, card


async def test_a_run_that_failed_is_exported_without_a_model(
    cli: Cli, run: RunView, coordinator_url: str, tmp_path: Path
) -> None:
    await trained(coordinator_url, run.id, well=False)
    done = json.loads(cli("runs", "export", run.id, "--out", "exported", "--json").stdout)
    assert done["without"] == "a model, as the run is failed"
    assert done["files"] == sorted(path.name for path in (tmp_path / "exported").iterdir())
    assert "model" not in done["files"]
    refused = cli("runs", "export", run.id, "--out", "exported")
    assert (refused.returncode, "not an empty directory" in refused.stderr) == (2, True)


def test_without_pyarrow_nothing_is_written_and_the_extra_is_named(
    cli: Cli, run: RunView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused = cli("runs", "export", run.id, "--out", "exported")
    assert refused.returncode == 2
    assert "pip install 'tutelage[export]'" in refused.stderr
    assert not (tmp_path / "exported").exists()


def test_name_labels_and_note_are_changed_and_taken_away(cli: Cli, run: RunView) -> None:
    said = cli("runs", "edit", run.id, "--name", "best", "--label", "team=a", "--label", "at=b=c", "--note", "keep it")
    facts = dict(line.split(maxsplit=1) for line in said.stdout.splitlines())
    assert (facts["name"], facts["labels"], facts["note"]) == ("best", "at=b=c team=a", "keep it")
    done = cli("runs", "edit", run.id, "--label", "at=", "--note", "", "--json")
    changed = RunView.model_validate_json(done.stdout)
    assert (changed.name, changed.labels, changed.note) == ("best", {"team": "a"}, None)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "nothing is to be changed; give --name, --label or --note"),
        (("--label", "team"), "'team' is not KEY=VALUE"),
        (("--name", "a b"), "name: "),
    ],
)
def test_a_change_that_cannot_be_meant_is_one_sentence(
    cli: Cli, run: RunView, flags: tuple[str, ...], said: str
) -> None:
    refused = cli("runs", "edit", run.id, *flags)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in refused.stderr
