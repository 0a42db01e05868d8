"""A real coordinator and a toy teacher for the command line, which runs as the process that a user starts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 60
TUTELAGE = [sys.executable, "-c", "import sys; from tutelage_client.cli import main; sys.exit(main())"]
SPEC = """
name = "walk"
[student]
model = "student"
[data]
train = "prompts.jsonl"
[rollout]
source = "student"
[objective]
kind = "constant_penalty"
[optim]
steps = 40
"""
ENV = {name: value for name, value in os.environ.items() if not name.startswith("TUTELAGE_")}

Cli = Callable[..., subprocess.CompletedProcess[str]]


@contextmanager
def serving(*argv: str) -> Iterator[str]:
    """A service as a process; its address."""
    command = [sys.executable, "-m", *argv, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENV, text=True)
    try:
        assert process.stdout is not None
        said = re.match(r"listening on (http://\S+)", process.stdout.readline())
        assert said, f"{command} did not come up"
        yield said[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def coordinator_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A coordinator without a trainer."""
    with serving("tutelage.coordinator", "--data-dir", str(tmp_path_factory.mktemp("coordinator"))) as url:
        yield url


@pytest.fixture(scope="session")
def teacher_url() -> Iterator[str]:
    """A teacher with a vocabulary of 16 that is known to no coordinator."""
    options = '{"vocabulary_size": 16}'
    with serving("tutelage.teacher", "--engine", "fake", "--name", "walker", "--fake-options", options) as url:
        yield url


@pytest.fixture
def command() -> list[str]:
    """What the installed script `tutelage` does."""
    return TUTELAGE


@pytest.fixture
def environment(coordinator_url: str) -> dict[str, str]:
    return ENV | {"TUTELAGE_COORDINATOR": coordinator_url}


@pytest.fixture
def cli(tmp_path: Path, environment: dict[str, str]) -> Cli:
    """Run `tutelage ARGS` in a folder of its own; `env` adds to the environment, None takes away."""

    def run(*args: str, env: dict[str, str | None] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        merged = environment | (env or {})
        return subprocess.run(
            [*TUTELAGE, *args],
            cwd=tmp_path,
            env={name: value for name, value in merged.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            **options,
        )

    return run


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "walk.toml"
    path.write_text(SPEC)
    return path
