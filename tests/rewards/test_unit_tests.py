"""Code passes by doing what the tests ask, by nothing else, and reaches nothing outside of its sandbox."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tutelage.rewards import grade
from tutelage.rewards.unit_tests import code_in
from tutelage_client.wire import Reward, RewardItem, UnitTests

ADD = "def add(a, b):\n    return a + b\n"
TESTS = "assert add(1, 2) == 3\nassert add('a', 'b') == 'ab'"


def graded(*completions: str, tests: str = TESTS, timeout_s: float = 30.0) -> list[Reward]:
    items = [RewardItem(prompt="p", completion=completion, reference=tests) for completion in completions]
    return grade(UnitTests(timeout_s=timeout_s), items)


def outcomes(*completions: str, tests: str = TESTS, timeout_s: float = 30.0) -> list[str]:
    return [reward.detail["outcome"] for reward in graded(*completions, tests=tests, timeout_s=timeout_s)]


def test_right_code_passes_and_wrong_code_fails() -> None:
    right, fenced, wrong, broken = graded(ADD, f"Here it is:\n```python\n{ADD}```\nDone.", "add = max", "def add(")
    assert (right.value, fenced.value, wrong.value, broken.value) == (1.0, 1.0, 0.0, 0.0)
    assert wrong.detail["reason"].startswith("AssertionError")
    assert broken.detail["reason"].startswith("SyntaxError")


def test_tests_may_be_functions_import_the_solution_and_expect_exceptions() -> None:
    tests = """
from solution import head
def test_values():
    assert head([(1, {"a": {2}}), None]) == (1, {"a": {2}})
    assert head([float("inf")]) == float("inf")
def test_empty():
    try:
        head([])
    except IndexError:
        return
    raise AssertionError("no IndexError")
"""
    code = "def head(items):\n    return items[0]"
    assert outcomes(f"{code}\n", tests="assert head([10**9999]) == 10**9999") == ["passed"]
    assert outcomes(code, "def head(items):\n    return (items or [1])[0]", tests=tests) == ["passed", "failed"]


@pytest.mark.parametrize(
    "code",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        'import os\nprint(\'{"outcome": "passed"}\')\n'
        'for fd in range(64):\n    try:\n        os.write(fd, b\'{"outcome": "passed"}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)",
        "class Same(int):\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Same(0)",
        "import builtins\nbuiltins.AssertionError = Warning\ndef add(a, b):\n    raise SystemExit(0)",
        "import os, signal\nfor pid in (os.getppid(), 1, -1):\n    try:\n        os.kill(pid, signal.SIGKILL)\n"
        "    except OSError:\n        pass",
    ],
    ids=["exit", "hard exit", "fake verdict", "equal to all", "patched builtins", "killed parents"],
)
def test_no_verdict_can_be_forged(code: str) -> None:
    (reward,) = graded(code)
    assert reward.valid
    assert reward.value == 0.0
    assert reward.detail["outcome"] in ("failed", "crashed")


def test_what_takes_too_much_ends_and_is_no_answer() -> None:
    loops = ["while True:\n    pass", "def add(a, b):\n    while True:\n        pass"]
    assert outcomes(*loops, timeout_s=2.0) == ["timed_out", "timed_out"]
    hog, bomb = graded(
        "held = [bytearray(1 << 20) for _ in range(10_000)]", f"import os\nwhile True:\n    os.fork()\n{ADD}"
    )
    assert (hog.value, hog.detail["reason"]) == (0.0, "MemoryError: ")
    assert (bomb.value, bomb.detail["reason"].split(":")[0]) == (0.0, "BlockingIOError")


def test_secrets_files_and_network_are_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_SECRET", "hunter2")
    (tmp_path / "key").write_text("hunter2")
    blind = f"import os\nassert 'TUTELAGE_SECRET' not in os.environ\n{ADD}"
    assert outcomes(blind) == ["passed"]
    closed = [
        f"open({str(tmp_path / 'key')!r}).read()",
        f"open('/proc/{os.getpid()}/environ').read()",
        "import os\nopen(f'/proc/{os.getppid()}/environ').read()",
        "import os\nopen(f'/proc/{os.getppid()}/mem', 'rb+')",
        "open('huge', 'wb').write(bytes(1 << 20))",
        "open('/tmp/huge', 'wb').write(bytes(1 << 20))",
        "import socket\nsocket.socket().connect(('127.0.0.1', 22))",
        "import socket\nsocket.socket(type=socket.SOCK_DGRAM).sendto(b'a', ('127.0.0.1', 53))",
        "import socket\nsocket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    ]
    for reward in graded(*closed):
        assert (reward.value, reward.detail["outcome"]) == (0.0, "failed")
        assert reward.detail["reason"].split(":")[0] in ("PermissionError", "FileNotFoundError", "OSError")


def test_a_process_cannot_leave_its_group_to_stay_behind() -> None:
    name = f"stray-{os.getpid()}"
    stray = (
        f"import ctypes, os, time\nctypes.CDLL(None).prctl(15, {name.encode()!r})\n"
        "for leave in (os.setsid, os.setpgrp):\n    try:\n        leave()\n    except PermissionError:\n        pass\n"
        "    else:\n        raise SystemExit(3)\n"
        "time.sleep(3600)"
    )
    assert outcomes(stray, timeout_s=3.0) == ["timed_out"]
    assert name not in {path.read_text().strip() for path in Path("/proc").glob("[0-9]*/comm") if path.exists()}


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        (None, "needs a reference"),
        ("assert add(", "must be tests in Python"),
        ("assert add(lambda: 1, 2)", "an argument that is not plain"),
    ],
)
def test_what_the_tests_do_wrong_is_not_the_answers_fault(tests: str | None, reason: str) -> None:
    (reward,) = grade(UnitTests(), [RewardItem(prompt="p", completion=ADD, reference=tests)])
    assert (reward.value, reward.valid) == (None, False)
    assert reason in reward.detail["reason"]


def test_the_last_whole_block_is_the_code() -> None:
    assert code_in("```py\na\n```\ntext\n```python\nb\n```\n") == "b\n"
    assert code_in("a = 1") == "a = 1"
    assert code_in("```python\ncut off") == "```python\ncut off"
