"""The process of the tests. The answer's code is in another one, of which it calls functions and gets plain values.

So the code sees neither the tests nor the way to say that they passed: whatever it prints, patches or exits with, it
can only return values.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from io import BufferedRWPair
from types import ModuleType
from typing import Any

from tutelage.sandbox.answer import serve
from tutelage.sandbox.launch import limit
from tutelage.sandbox.seal import seal
from tutelage.sandbox.values import NotPlain, packed, unpacked

_LONGEST_ANSWER = 1 << 20  # bytes of one returned value


class Crashed(BaseException):
    """The process of the answer has ended, or sends what is no value. Tests that catch exceptions do not catch it."""


class TimedOut(BaseException):
    """The time for all tests is over."""


class Unfit(BaseException):
    """The tests want what cannot be done here."""


class Raised(Exception):
    """The answer raised an exception that is not built in."""


def main() -> None:
    """Arguments: seconds, MiB. An empty line out once sealed, then a job in, {code, tests}, then a verdict out."""
    timeout_s, memory_mb = float(sys.argv[1]), int(sys.argv[2])
    sys.set_int_max_str_digits(0)  # the time is bounded here, and an answer may be a long number
    limit(memory_mb=memory_mb, cpu_s=int(timeout_s) + 2)
    if reason := _not_sealed():
        print(json.dumps({"reason": f"code is not run here: {reason}"}), flush=True)
        return
    inside = os.fork()  # the first process of its own space: when it ends, all in there end
    if inside:
        os.waitpid(inside, 0)
        return
    _try(timeout_s)


def _not_sealed() -> str:
    """Seal this process. Returns why no code may run in it, if so."""
    try:
        lying_open = seal().open
    except PermissionError as error:
        return f"root runs it as the user nobody, who cannot read {error.filename}; install Python where all users can"
    return f"this system lets nobody close off {' and '.join(lying_open)} (see the docs)" if lying_open else ""


def _try(timeout_s: float) -> None:
    ours, theirs = socket.socketpair()
    answering = os.fork()  # before the tests are read, so that its memory does not hold them
    _no_more_processes()
    if answering == 0:
        ours.close()
        serve(theirs)
        os._exit(0)
    theirs.close()
    verdicts = os.fdopen(os.dup(1), "w")
    verdicts.write("\n")  # it has started: from here on, no verdict is a crash
    verdicts.flush()
    os.dup2(2, 1)  # what the tests print goes nowhere
    job = json.loads(sys.stdin.buffer.readline())
    signal.signal(signal.SIGALRM, _time_is_over)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    said = _verdict(ours, job)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.kill(answering, signal.SIGKILL)
    verdicts.write(json.dumps(said) + "\n")
    verdicts.flush()
    os._exit(0)


def _verdict(line: socket.socket, job: dict[str, str]) -> dict[str, str]:
    try:
        with line.makefile("rwb") as stream:
            _run_tests(stream, job)
    except Crashed as crash:
        return {"outcome": "crashed", "reason": str(crash)}
    except TimedOut:
        return {"outcome": "timed_out", "reason": "the tests did not end in time"}
    except Unfit as unfit:
        return {"reason": str(unfit)}
    except BaseException as error:  # noqa: BLE001 - a failed assertion, or what the answer raised
        return {"outcome": "failed", "reason": f"{type(error).__name__}: {error}"[:300]}
    return {"outcome": "passed"}


def _run_tests(stream: BufferedRWPair, job: dict[str, str]) -> None:
    try:
        tests = compile(job["tests"], "tests", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unfit(f"the reference must be tests in Python: {error}"[:300]) from error
    loaded = _asked(stream, {"code": job["code"]})
    functions = {name: _function(stream, name) for name in loaded["callables"]}
    sys.modules["solution"] = solution = ModuleType("solution")
    solution.__dict__.update(functions)
    names: dict[str, Any] = {"__name__": "tests", **functions}
    exec(tests, names)  # noqa: S102 - it is what this process is for
    for name, held in list(names.items()):
        if name.startswith("test_") and callable(held) and name not in functions:
            held()


def _function(stream: BufferedRWPair, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            asked = {"call": name, "args": packed(args), "kwargs": packed(kwargs)}
        except NotPlain as error:
            raise Unfit(f"the tests give {name} an argument that is not plain: {error}") from error
        said = _asked(stream, asked)
        try:
            return unpacked(said["value"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise Crashed("the answer's process sent what is no value") from error

    call.__name__ = name
    return call


def _asked(stream: BufferedRWPair, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        stream.write(json.dumps(asked).encode() + b"\n")
        stream.flush()
        line = stream.readline(_LONGEST_ANSWER)
    except OSError as error:
        raise Crashed("the answer's process ended") from error
    if not line.endswith(b"\n"):
        raise Crashed("the answer's process ended" if len(line) < _LONGEST_ANSWER else "a value is over 1 MiB")
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Crashed("the answer's process sent what is no value") from error
    if not isinstance(said, dict):
        raise Crashed("the answer's process sent what is no value")
    if "raised" in said:
        raise _exception(str(said["raised"]), str(said.get("text")))
    return said


def _exception(name: str, text: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(text)
        except TypeError:
            pass  # some need more than a text, such as UnicodeDecodeError
    return Raised(f"{name}: {text}")


def _no_more_processes() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _time_is_over(*_: object) -> None:
    raise TimedOut
