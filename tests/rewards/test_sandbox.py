"""What a sandbox holds where the kernel refuses namespaces, as in most containers, and what it says where it cannot.

As root the answers run as the user nobody. Python may lie in root's own home here, so it is shown at another place.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tutelage_client.wire import Reward

ADD = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(1, 2) == 3"
HELPER = Path(__file__).parents[1] / "support" / "refused_calls.py"
ROOT = os.geteuid() == 0


def landlock() -> int:
    """The kernel's version of it; below 1 without any."""
    return ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)


closes_processes = pytest.mark.skipif(
    not ROOT and landlock() < 6, reason="without namespaces it takes root or Landlock 6 to close off processes"
)


@pytest.fixture
def python() -> Iterator[list[str]]:
    """The start of a command: this Python, at a place that the user nobody can read."""
    private = any(not path.stat().st_mode & 0o001 for path in Path(sys.base_prefix).parents)
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield shown_at(Path(folder)) if ROOT and private else [sys.executable]


def shown_at(folder: Path) -> list[str]:
    """This Python, seen in this folder by the command alone."""
    program = folder / "bin" / f"python{sysconfig.get_python_version()}"
    script = f'mount --bind "{sys.base_prefix}" "{folder}" && exec "{program}" "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


def graded(python: list[str], refused: list[str], *codes: str) -> list[Reward]:
    """By TESTS, in a process that is refused these calls."""
    ours = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    job = json.dumps([[code, TESTS] for code in codes])
    command = [*python, str(HELPER), *refused]
    done = subprocess.run(command, input=job, capture_output=True, text=True, timeout=120, env=ours, check=False)
    assert done.returncode == 0, done.stderr
    return [Reward.model_validate_json(line) for line in done.stdout.splitlines()]


@closes_processes
def test_without_namespaces_right_code_passes_and_no_verdict_can_be_forged(python: list[str]) -> None:
    right, with_asyncio, *others = graded(
        python,
        ["namespaces"],
        ADD,
        f"import asyncio\nasync def one():\n    return 1\nassert asyncio.run(one()) == 1\n{ADD}",
        "import os\nos._exit(0)",
        'import os\nfor fd in range(64):\n    try:\n        os.write(fd, b\'{"outcome": "passed"}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        "import os, signal\nfor pid in (os.getppid(), 1, -1):\n    try:\n        os.kill(pid, signal.SIGKILL)\n"
        "    except OSError:\n        pass",
        "held = [bytearray(1 << 20) for _ in range(10_000)]",
        "import time\ntime.sleep(3600)",
    )
    assert (right.value, with_asyncio.value) == (1.0, 1.0)
    assert [reward.value for reward in others] == [0.0] * len(others)
    assert {reward.detail["outcome"] for reward in others} == {"failed", "crashed", "timed_out"}


CLOSED = [
    "open('/proc/1/environ').read()",
    "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
    f"import os\nos.listdir({str(Path.home())!r})",
    "open('/tmp/huge', 'wb').write(bytes(1 << 20))",
    "import socket\nsocket.socket()",
    "import socket\nsocket.socket(type=socket.SOCK_DGRAM)",
    "import socket\nsocket.socket(socket.AF_UNIX)",
    "import socket\nsocket.socketpair(type=socket.SOCK_DGRAM)",  # such a one can send anywhere
    "import os\nos.setsid()",
    "import os\nos.setpgrp()",
    "import os\nos.sched_setaffinity(os.getppid(), {0})",
    "import os\nos.setpriority(os.PRIO_USER, 0, 19)",
    "import os, resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (0, 0))",
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "assert libc.shmget(0, 4096, 0o1600) < 0\nraise OSError(ctypes.get_errno(), 'no shared memory')",
    "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "assert libc.syscall(425, 8, bytes(120)) < 0\nraise OSError(ctypes.get_errno(), 'no ring')",
]


@closes_processes
def test_without_namespaces_files_network_and_other_processes_are_out_of_reach(python: list[str]) -> None:
    for code, reward in zip(CLOSED, graded(python, ["namespaces"], *CLOSED), strict=True):
        assert (reward.value, reward.detail["outcome"]) == (0.0, "failed"), code
        assert reward.detail["reason"].split(":")[0] in ("PermissionError", "OSError"), (code, reward.detail)


@pytest.mark.parametrize(
    ("refused", "open_to_a_user", "open_to_root"),
    [
        (["namespaces", "filters"], "processes and network", "network"),
        (["namespaces", "landlock"], "files and processes", ""),
        (["namespaces", "landlock", "filters"], "files and processes and network", "network"),
        (["filters"], "", ""),
    ],
    ids=" ".join,
)
def test_no_code_is_run_where_something_lies_open_and_the_reason_names_it(
    python: list[str], refused: list[str], open_to_a_user: str, open_to_root: str
) -> None:
    (reward,) = graded(python, refused, ADD)
    lying_open = open_to_root if ROOT else open_to_a_user
    if not lying_open:
        assert (reward.value, reward.valid) == (1.0, True)
        return
    assert (reward.value, reward.valid) == (None, False)
    assert reward.detail["reason"].startswith(f"code is not run here: this system lets nobody close off {lying_open} (")


@pytest.mark.skipif(not ROOT, reason="root alone can run answers as another user")
def test_root_says_that_its_python_is_out_of_reach_of_the_user_that_answers_run_as(tmp_path: Path) -> None:
    (private := tmp_path / "private").mkdir(mode=0o700)
    (place := private / "python").mkdir()
    (reward,) = graded(shown_at(place), ["namespaces"], ADD)
    assert (reward.value, reward.valid) == (None, False)
    assert f"nobody, who cannot read {place}" in reward.detail["reason"]
    assert "install Python where all users can" in reward.detail["reason"]
