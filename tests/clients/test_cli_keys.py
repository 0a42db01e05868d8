"""A bearer key for the coordinator or the teacher that is asked: from a file, never from an argument."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tutelage_client.cli.parser import SCOPES
from tutelage_client.wire import Scope

KEY = "open-sesame"
ADMIN = "open-sesame-" * 4
NO_RUNS = {"/v1/runs": {"data": [], "next": None}}
Gateway = Callable[[str | None, dict[str, Any]], str]
Cli = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def guarded_teacher(tmp_path_factory: pytest.TempPathFactory, serving: Callable[..., Any]) -> Iterator[str]:
    """A real teacher that knows one key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()}  # ours\n")
    with serving("tutelage.teacher", "--engine", "fake", "--name", "guarded", "--keys-file", str(keys)) as url:
        yield url


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    (tmp_path / "key").write_text(f"{KEY}\n")
    return "key"


def refusal(done: CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
    return done.stderr


def test_a_teacher_with_keys_is_asked_with_the_flag_or_the_environment(
    cli: Cli, guarded_teacher: str, key_file: str
) -> None:
    ask = ("score", "--teacher", guarded_teacher, "--token-ids", "1,2,3")
    for done in (cli(*ask, "--key-file", key_file), cli(*ask, env={"TUTELAGE_KEY_FILE": key_file})):
        assert (done.returncode, done.stderr) == (0, "")
        assert "guarded: " in done.stdout
    over = cli(*ask, "--key-file", key_file, env={"TUTELAGE_KEY_FILE": "absent"})
    assert over.returncode == 0, "the flag counts before the environment"


def test_without_a_key_or_with_a_wrong_one_the_sentence_names_the_flag(
    cli: Cli, guarded_teacher: str, tmp_path: Path
) -> None:
    ask = ("score", "--teacher", guarded_teacher, "--token-ids", "1,2,3")
    said = refusal(cli(*ask))
    assert said.startswith(f"tutelage: the teacher at {guarded_teacher} wants a key; give the file that holds it")
    assert "--key-file" in said
    (tmp_path / "wrong").write_text("close-sesame")
    said = refusal(cli(*ask, "--key-file", "wrong"))
    assert said.startswith(
        f"tutelage: the teacher at {guarded_teacher} does not know the key in wrong; give --key-file"
    )
    assert "close-sesame" not in said


@pytest.fixture(scope="module")
def guarded_coordinator(tmp_path_factory: pytest.TempPathFactory, serving: Callable[..., Any]) -> Iterator[str]:
    """A real coordinator that knows the key of its administrator."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "admin.key").write_text(ADMIN)
    flags = ("--data-dir", str(folder / "data"), "--require-keys", "--admin-key-file", str(folder / "admin.key"))
    with serving("tutelage.coordinator", *flags) as url:
        yield url


def test_a_key_is_made_used_listed_and_revoked(cli: Cli, guarded_coordinator: str, tmp_path: Path) -> None:
    (tmp_path / "admin").write_text(ADMIN)
    there = ("--coordinator", guarded_coordinator, "--key-file")
    made = cli("keys", "create", "ci", "--scope", "runs:read", "--project", "lab", "--days", "7", *there, "admin")
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith("tk_")
    assert made.stdout.count("\n") == 1
    key_id = made.stderr.split()[0]
    assert "of the project lab; its secret is shown this once" in made.stderr
    (tmp_path / "ci").write_text(made.stdout)
    assert json.loads(cli("runs", "ls", "--json", *there, "ci").stdout) == {"data": [], "next": None}
    assert "lacks the scope teachers:read" in refusal(cli("teachers", "ls", *there, "ci"))
    listed = cli("keys", "ls", *there, "admin").stdout
    assert re.search(rf"{key_id} +ci +lab .* until .* runs:read", listed)
    assert made.stdout.strip() not in listed
    assert cli("keys", "revoke", key_id, *there, "admin").stdout == f"{key_id} (ci) is refused from now on\n"
    told = cli("audit", "--target", key_id, *there, "admin").stdout.splitlines()
    assert [line.split()[2:5] for line in told[1:]] == [
        ["file:admin", "key.revoke", key_id],
        ["file:admin", "key.create", key_id],
    ]
    page = json.loads(cli("audit", "--action", "refused", "--json", *there, "admin").stdout)
    assert [(each["owner"], each["status"], each["route"]) for each in page["data"]] == [
        ("ci", 403, "GET /v1/teachers")
    ]
    assert f"refuses the key in ci; the key {key_id} (ci) was revoked" in refusal(cli("runs", "ls", *there, "ci"))


def test_the_scopes_of_the_command_are_those_of_the_wire() -> None:
    assert set(Scope) == set(SCOPES)


def test_a_coordinator_behind_a_key_is_asked_with_it(cli: Cli, gateway: Gateway, key_file: str) -> None:
    url = gateway(KEY, NO_RUNS)
    said = refusal(cli("runs", "ls", "--coordinator", url))
    assert said.startswith(f"tutelage: the coordinator at {url} wants a key; ")
    for where in (("--key-file", key_file, "runs", "ls"), ("runs", "ls", "--key-file", key_file)):
        done = cli(*where, "--coordinator", url)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read the key file key: No such file"),
        (b"", "must hold one key"),
        (b"one\ntwo\n", "must hold one key"),
        ("schlüssel".encode(), "must hold one key"),
        (b"\xff\xfe", "cannot read the key file key: "),
    ],
    ids=["absent", "empty", "two", "not-ascii", "not-text"],
)
def test_a_key_file_that_holds_no_key_is_refused(cli: Cli, tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    assert said in refusal(cli("runs", "ls", "--key-file", "key"))
