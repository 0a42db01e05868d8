"""Code that is run against tests, in processes that can do no harm and are killed when their time is over."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tutelage.rewards.outcomes import no_reference, scored, ungraded
from tutelage.sandbox.launch import Child
from tutelage_client.wire import Reward, RewardItem, UnitTests

# The process ends itself at its deadline; this much later it is taken to be beyond that.
_GRACE_S = 10.0
_FENCE = re.compile(r"^```[ \t]*(?:python|py)?[ \t]*\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


def tested(grader: UnitTests, items: Sequence[RewardItem]) -> list[Reward]:
    """1.0 where the code of the completion passes the tests of the reference, as many items at a time as CPUs."""
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as beside:
        return list(beside.map(partial(_graded, grader), items))


def code_in(completion: str) -> str:
    """The last block of Python between fences, or all of it."""
    blocks = _FENCE.findall(completion)
    return blocks[-1] if blocks else completion


def _graded(grader: UnitTests, item: RewardItem) -> Reward:
    if not (item.reference or "").strip():
        return no_reference(grader)
    assert item.reference is not None
    try:
        ast.parse(item.reference)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return ungraded(f"the reference must be tests in Python: {error}")
    job = {"code": code_in(item.completion), "tests": item.reference}
    limits = (str(grader.timeout_s), str(grader.memory_mb))
    try:
        with Child("trial", *limits, packages=False) as child:
            said, _ = child.process.communicate(json.dumps(job).encode(), timeout=grader.timeout_s + _GRACE_S)
    except subprocess.TimeoutExpired:
        return scored(False, outcome="timed_out", reason="the tests' process did not end in time")
    if not said:
        return ungraded("the sandbox did not start")
    verdict = json.loads(said) if said.strip() else {"outcome": "crashed", "reason": "the tests' process ended"}
    if "outcome" not in verdict:
        return ungraded(verdict["reason"])
    return scored(verdict["outcome"] == "passed", **verdict)
