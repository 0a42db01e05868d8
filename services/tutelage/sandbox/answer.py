"""The process of an answer's code: it runs the code, then calls of it what it is told to, and sends values back."""

from __future__ import annotations

import json
import os
import socket
from types import ModuleType
from typing import Any

from tutelage.sandbox.values import packed, unpacked


def serve(line: socket.socket) -> None:
    """Until the other end closes. Each line in is the code, or a call; each line out a value or an exception."""
    for standard in (0, 1):
        os.dup2(2, standard)  # standard error goes nowhere
    names: dict[str, Any] = {}
    with line.makefile("rwb") as stream:
        for message in stream:
            asked = json.loads(message)
            try:
                said = _loaded(names, asked["code"]) if "code" in asked else {"value": packed(_called(names, asked))}
                answer = json.dumps(said)
            except BaseException as error:  # noqa: BLE001 - whatever the code raises, exits included, is its answer
                answer = json.dumps({"raised": type(error).__name__, "text": _text(error)})
            stream.write(answer.encode() + b"\n")
            stream.flush()


def _loaded(names: dict[str, Any], code: str) -> dict[str, Any]:
    """Run the code as a module. Returns the names of what can be called."""
    module = ModuleType("answer")
    exec(compile(code, "answer", "exec"), module.__dict__)  # noqa: S102 - it is what this process is for
    names.update(module.__dict__)
    return {"callables": [name for name, held in names.items() if callable(held) and not name.startswith("__")]}


def _called(names: dict[str, Any], asked: dict[str, Any]) -> Any:
    args, kwargs = unpacked(asked["args"]), unpacked(asked["kwargs"])
    return names[asked["call"]](*args, **kwargs)


def _text(error: BaseException) -> str:
    try:
        return str(error)[:200]
    except Exception:  # noqa: BLE001 - the code's own exception may not be printable
        return ""
