"""Mathematical equality, asked of a process that is killed and started anew where it does not answer in time."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from tutelage.rewards.outcomes import no_reference, scored, ungraded
from tutelage.sandbox.launch import Child
from tutelage_client.wire import Math, Reward, RewardItem

_START_S = 60.0


def equal_answers(grader: Math, items: Sequence[RewardItem]) -> Iterator[Reward]:
    """1.0 where the answer in the completion equals the reference as mathematics.

    Raises:
        RuntimeError: the process that compares does not start.
    """
    with Comparer(grader.timeout_s) as comparer:
        for item in items:
            yield _graded(grader, item, comparer)


class Comparer:
    """Compares answers in a process, which it starts when first asked and again after each that it had to kill."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._held = ExitStack()
        self._child: Child | None = None

    def __enter__(self) -> Comparer:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def compared(self, completion: str, reference: str) -> dict[str, Any]:
        """`equal` and `found`, or the `reason` why not, with an `outcome` where the completion is at fault."""
        child = self._child or self._started()
        try:
            child.stdin.write(json.dumps([completion, reference]).encode() + b"\n")
            child.stdin.flush()
            answer = _line(child, self._timeout_s)
        except BrokenPipeError:
            answer = b""
        if answer:
            return json.loads(answer)
        self._child = None
        self._held.close()
        if answer is None:
            return {"outcome": "timed_out", "reason": f"comparing the answers took longer than {self._timeout_s:g} s"}
        return {"outcome": "crashed", "reason": "comparing the answers ended its process"}

    def _started(self) -> Child:
        child = self._child = self._held.enter_context(Child("algebra", packages=True))
        if not _line(child, _START_S):
            raise RuntimeError("the process that compares mathematical answers does not start; is math-verify there?")
        return child


def _graded(grader: Math, item: RewardItem, comparer: Comparer) -> Reward:
    if not (item.reference or "").strip():
        return no_reference(grader)
    assert item.reference is not None
    if item.completion.strip() == item.reference.strip():
        return scored(True, found=item.reference.strip())
    found = comparer.compared(item.completion, item.reference.strip())
    return scored(**{"right": found.pop("equal"), **found}) if "equal" in found else ungraded(**found)


def _line(child: Child, timeout_s: float) -> bytes | None:
    """The next line; empty where the process has ended, None where it takes longer than `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                return None
            if not (block := os.read(child.stdout.fileno(), 65_536)):
                return b""
            line += block
    return line
