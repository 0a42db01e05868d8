"""`tutelage doctor`: what it looks at, what it only warns of, and what helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

from tutelage_client.cli.doctor import Check
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.teacher import TeacherClient

NOWHERE = "http://127.0.0.1:9"
READY = {"/readyz": {"status": "ready"}}
Gateway = Callable[[str | None, dict[str, Any]], str]
Cli = Callable[..., CompletedProcess[str]]


def found(done: CompletedProcess[str]) -> dict[str, Check]:
    checks = [Check.model_validate(each) for each in json.loads(done.stdout)["checks"]]
    return {check.name: check for check in checks}


def test_that_no_teacher_is_there_yet_is_a_warning_and_not_a_failure(cli: Cli, gateway: Gateway) -> None:
    url = gateway(None, READY | {"/v1/teachers": {"data": [], "next": None}})
    done = cli("doctor", "--json", "--coordinator", url)
    warned = found(done)["teachers"]
    assert (done.returncode, warned.result) == (0, "warning")
    assert "tutelage up --teacher NAME=DIR" in str(warned.remedy)


async def test_where_everything_that_one_machine_needs_is_there_each_check_of_it_is_a_line_that_says_ok(
    cli: Cli, coordinator_url: str, teacher_url: str
) -> None:
    async with TeacherClient(teacher_url) as teacher, CoordinatorClient(coordinator_url) as client:
        await client.register_teacher("walker", teacher_url, await teacher.info())
    done = cli("doctor", "--json")
    results = {name: check.result for name, check in found(done).items()}
    assert done.returncode == 0
    elsewhere = {f"extra {name}" for name in ("vllm", "wandb", "mlflow", "trackio")}  # a GPU's, and who wants them
    assert {results.pop(name) for name in elsewhere & results.keys()} == {"absent"}
    assert results == dict.fromkeys(["python", "extras", "coordinator", "teacher walker"], "ok")
    lines = [line.split() for line in cli("doctor").stdout.splitlines()]
    assert lines[0] == ["RESULT", "CHECK", "FOUND"]
    assert [line[:2] for line in lines[1:] if line[0] == "ok"] == [["ok", name.split()[0]] for name in results]
    row = cli("teachers", "ls").stdout.splitlines()[1].split()
    assert (row[0], row[1]) == ("walker", "yes")
    assert teacher_url in row


def test_without_a_coordinator_it_fails_and_says_how_to_start_one(cli: Cli) -> None:
    done = cli("doctor", "--coordinator", NOWHERE)
    assert done.returncode == 1
    assert " ".join(done.stdout.splitlines()[-1].split()).startswith("failed coordinator no answer from")
    assert "start one with `tutelage up`" in done.stdout


async def test_a_teacher_that_fell_silent_is_a_failure(
    cli: Cli, coordinator_url: str, teacher_url: str, gateway: Gateway
) -> None:
    async with TeacherClient(teacher_url) as teacher, CoordinatorClient(coordinator_url) as client:
        view = await client.register_teacher("walker", teacher_url, await teacher.info())
    silent = view.model_copy(update={"available": False}).model_dump(mode="json")
    url = gateway(None, READY | {"/v1/teachers": {"data": [silent], "next": None}})
    done = cli("doctor", "--json", "--coordinator", url)
    check = found(done)["teacher walker"]
    assert (done.returncode, check.result) == (1, "failed")
    assert check.detail.startswith(f"silent, was at {teacher_url}")
    assert check.remedy is not None and check.remedy.endswith("tutelage teachers rm walker")
    assert cli("teachers", "rm", "walker").stdout.startswith("walker is off the list")
    assert cli("teachers", "ls").stdout.startswith("no teachers yet")


def test_an_address_that_is_no_coordinators_is_named(cli: Cli, teacher_url: str) -> None:
    done = cli("doctor", "--json", "--coordinator", teacher_url)
    assert done.returncode == 1
    assert found(done)["teachers"].remedy == "is this a coordinator's address?"


def test_a_coordinator_that_wants_a_key_is_a_failure_with_the_flag_that_helps(cli: Cli, gateway: Gateway) -> None:
    done = cli("doctor", "--json", "--coordinator", gateway("open-sesame", {}))
    check = found(done)["coordinator"]
    assert (done.returncode, check.result) == (1, "failed")
    assert "--key-file" in str(check.remedy)
