"""A real coordinator and toy teachers for the command line, which runs in this process or as one of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tutelage_client import sync
from tutelage_client.cli import main

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
def started(*argv: str) -> Iterator[str]:
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
def serving() -> Callable[..., AbstractContextManager[str]]:
    """Start a service as a process: `with serving(MODULE, *FLAGS) as url`."""
    return started


@pytest.fixture
def gateway() -> Iterator[Callable[[str | None, dict[str, Any]], str]]:
    """What stands before a coordinator: `gateway(key, {path: answer})` is its address; without the key it says 401."""
    servers: list[ThreadingHTTPServer] = []

    def start(key: str | None, answers: dict[str, Any]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = key is None or self.headers["Authorization"] == f"Bearer {key}"
                self.send_response(200 if allowed else 401)
                self.end_headers()
                self.wfile.write(json.dumps(answers.get(self.path.partition("?")[0])).encode() if allowed else b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base
                return

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def shared_coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started("tutelage.coordinator", "--data-dir", str(tmp_path_factory.mktemp("coordinator"))) as url:
        yield url


@pytest.fixture
def coordinator_url(shared_coordinator: str) -> Iterator[str]:
    """A coordinator without a trainer. Runs of other tests may be there, their teachers are not."""
    yield shared_coordinator
    with sync.Tutelage(shared_coordinator) as client:
        for teacher in client.teachers.all():
            client.teachers.remove(teacher.name)


@pytest.fixture(scope="session")
def teacher_url() -> Iterator[str]:
    """A teacher with a vocabulary of 16 that is known to no coordinator."""
    options = '{"vocabulary_size": 16}'
    with started("tutelage.teacher", "--engine", "fake", "--name", "walker", "--fake-options", options) as url:
        yield url


@pytest.fixture
def command() -> list[str]:
    """What the installed script `tutelage` does."""
    return list(TUTELAGE)


@pytest.fixture
def environment(coordinator_url: str) -> dict[str, str]:
    return ENV | {"TUTELAGE_COORDINATOR": coordinator_url}


@pytest.fixture
def cli(tmp_path: Path, environment: dict[str, str]) -> Cli:
    """Run `tutelage ARGS` in a folder of its own; `env` adds to the environment, None takes away.

    It runs in this process, so that its imports are paid for once, and in a thread, as it starts an event loop.
    """

    def run(*args: str, env: dict[str, str | None] | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
        out, err = StringIO(), StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(tmp_path)
            patch.setattr(os, "environ", completed(environment, env))
            patch.setattr(sys, "argv", ["tutelage", *args])
            patch.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode())))
            with ThreadPoolExecutor(1) as thread:
                code = thread.submit(exit_code).result(TIMEOUT_S)
        return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def process(tmp_path: Path, environment: dict[str, str], command: list[str]) -> Cli:
    """The same as the process that a user starts."""

    def run(*args: str, env: dict[str, str | None] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *args],
            cwd=tmp_path,
            env=completed(environment, env),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    return run


def completed(environment: dict[str, str], changes: dict[str, str | None] | None) -> dict[str, str]:
    return {name: value for name, value in (environment | (changes or {})).items() if value is not None}


def exit_code() -> int:
    """Of `tutelage`, which may also leave by SystemExit, as argparse does."""
    try:
        return main()
    except SystemExit as left:
        return int(left.code or 0)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "walk.toml"
    path.write_text(SPEC)
    return path
