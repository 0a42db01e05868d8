"""Mathematical equality, asked of a process that is killed and started anew where it does not answer in time."""

from __future__ import annotations

import json
import os
import selectors
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tutelage.rewards.outcomes import no_reference, scored, ungraded
from tutelage.sandbox.launch import Child
from tutelage_client.wire import Math, Reward, RewardItem

_START_S = 60.0


def equal_answers(grader: Math, items: Sequence[RewardItem], comparers: Comparers) -> Iterator[Reward]:
    """1.0 where the answer in the completion equals the reference as mathematics.

    Raises:
        RuntimeError: the process that compares does not start.
    """
    with comparers.one() as comparer:
        for item in items:
            yield _graded(grader, item, comparer)


class Comparers:
    """Lends comparers, from any thread. One that comes back is kept, as its process takes long to start."""

    def __init__(self) -> None:
        self._kept: Comparer | None = None
        self._closed = False
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Comparer]:
        with self._lock:
            comparer, self._kept = self._kept or Comparer(), None
        try:
            yield comparer
        except BaseException:
            comparer.close()  # it may be in the middle of an answer
            raise
        with self._lock:
            keep = self._kept is None and not self._closed
            if keep:
                self._kept = comparer
        if not keep:
            comparer.close()

    def close(self) -> None:
        """Ends the one that is kept; one that is lent ends when it comes back."""
        with self._lock:
            comparer, self._kept, self._closed = self._kept, None, True
        if comparer:
            comparer.close()


class Comparer:
    """Compares answers in a process, which it starts when first asked and again after each that it had to kill."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._child: Child | None = None

    def close(self) -> None:
        self._child = None
        self._held.close()

    def compared(self, completion: str, reference: str, timeout_s: float) -> dict[str, Any]:
        """`equal` and `found`, or the `reason` why not, with an `outcome` where the completion is at fault."""
        child = self._running()
        try:
            child.stdin.write(json.dumps([completion, reference]).encode() + b"\n")
            child.stdin.flush()
            answer = _line(child, timeout_s)
        except BrokenPipeError:
            answer = b""
        if answer:
            return json.loads(answer)
        self.close()
        if answer is None:
            return {"outcome": "timed_out", "reason": f"comparing the answers took longer than {timeout_s:g} s"}
        return {"outcome": "crashed", "reason": "comparing the answers ended its process"}

    def _running(self) -> Child:
        if self._child is not None and self._child.process.poll() is None:
            return self._child
        self.close()  # nothing, or one that ended while nobody asked it
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
    found = comparer.compared(item.completion, item.reference.strip(), grader.timeout_s)
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
