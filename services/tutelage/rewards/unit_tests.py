"""Code that is run against tests, in processes that can do no harm and are killed when their time is over."""

from __future__ import annotations

import asyncio
import json
import re

from tutelage.rewards.outcomes import no_reference, scored, ungraded
from tutelage.rewards.processes import NotAnswered
from tutelage.sandbox.launch import Child, NotStarted
from tutelage_client.wire import Reward, RewardItem, UnitTests

# The process ends itself at its deadline; this much later it is taken to be beyond that.
_GRACE_S = 10.0
_FENCE = re.compile(r"^```[ \t]*(?:(?:python|py)[ \t]*)?\n(.*?)^```", re.DOTALL | re.MULTILINE | re.IGNORECASE)


async def tested(grader: UnitTests, item: RewardItem) -> Reward:
    """1.0 where the code of the completion passes the tests of the reference.

    Raises:
        NotAnswered: the machine is at fault.
    """
    if not (item.reference or "").strip():
        return no_reference(grader)
    job = json.dumps({"code": code_in(item.completion), "tests": item.reference})
    try:
        async with Child("trial", str(grader.timeout_s), str(grader.memory_mb), packages=False) as child:
            if refused := child.ready.strip():
                raise NotAnswered("not_run", json.loads(refused)["reason"])
            async with asyncio.timeout(grader.timeout_s + _GRACE_S):
                said = await child.asked(job.encode())
    except NotStarted as error:
        raise NotAnswered("not_started", f"the sandbox did not start: {error}") from error
    except TimeoutError:
        return scored(False, outcome="timed_out", reason="the tests' process did not end in time")
    verdict = json.loads(said) if said else {"outcome": "crashed", "reason": "the tests' process ended"}
    if "outcome" not in verdict:
        return ungraded(verdict["reason"])
    return scored(verdict["outcome"] == "passed", **verdict)


def code_in(completion: str) -> str:
    """The last block of Python between fences, or all of it."""
    blocks = _FENCE.findall(completion)
    return blocks[-1] if blocks else completion
