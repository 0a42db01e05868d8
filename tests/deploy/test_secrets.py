"""Passwords that services read from files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.coordinator.settings import Settings
from tutelage_client.errors import InvalidInput

URL = "postgresql+psycopg://tutelage@db:5432/tutelage"


def test_the_database_is_opened_with_the_password_of_the_file_which_nothing_shows(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("p@ss/word\n")
    url = Settings(database_url=URL, database_password_file=tmp_path / "password").database
    assert (url.username, url.password, url.host) == ("tutelage", "p@ss/word", "db")
    assert "word" not in repr(url)


@pytest.mark.parametrize("url", [None, "postgresql+psycopg://db/tutelage", "postgresql+psycopg://a:b@db/tutelage"])
def test_a_password_without_a_user_or_beside_another_is_refused(tmp_path: Path, url: str | None) -> None:
    (tmp_path / "password").write_text("word")
    with pytest.raises(InvalidInput, match="names a user and no password"):
        _ = Settings(database_url=url, database_password_file=tmp_path / "password").database


FLAGS = {
    "coordinator": ("--database-url", URL, "--database-password-file"),
    "coordinator's keys": ("--admin-key-file",),
    "coordinator's queue": ("--redis-url", "redis://u@127.0.0.1/0", "--redis-password-file"),
    "trainer": ("--redis-url", "redis://u@127.0.0.1/0", "--redis-password-file"),
    "trainer's lease": ("--coordinator-key-file",),
    "teacher's place": ("--engine", "fake", "--coordinator", "http://127.0.0.1:1", "--coordinator-key-file"),
    "sampler": ("--redis-url", "redis://u@127.0.0.1/0", "--redis-password-file"),
    "teacher": ("--engine", "fake", "--redis-url", "redis://u@127.0.0.1/0", "--redis-password-file"),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_service_without_its_secret_ends_with_one_sentence(tmp_path: Path, case: str) -> None:
    service = case.partition("'")[0]
    command = [sys.executable, "-m", f"tutelage.{service}", *FLAGS[case], str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    assert done.returncode not in (0, 70)
    assert done.stderr.count("\n") == 1
    assert "cannot read the key file" in done.stderr
    assert "missing: No such file or directory" in done.stderr
