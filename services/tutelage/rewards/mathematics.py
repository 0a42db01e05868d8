"""Mathematical equality, asked of a process, since algebra may never end."""

from __future__ import annotations

from tutelage.rewards.outcomes import no_reference, scored, ungraded
from tutelage.rewards.processes import Worker
from tutelage_client.wire import Math, Reward, RewardItem

_PLAIN = "0"


async def equal_answer(grader: Math, item: RewardItem, worker: Worker) -> Reward:
    """1.0 where the answer in the completion equals the reference as mathematics.

    One that cannot be compared is wrong, or a student would do well to write such answers instead of wrong ones. Unless
    the reference cannot be compared with a plain number either: then it is not valid.

    Raises:
        NotAnswered: the machine is at fault.
    """
    if not (item.reference or "").strip():
        return no_reference(grader)
    assert item.reference is not None
    reference = item.reference.strip()
    if item.completion.strip() == reference:
        return scored(True, found=reference)
    said = await worker.asked(item.completion, reference, timeout_s=grader.timeout_s)
    if "outcome" in said:
        plain = await worker.asked(_PLAIN, reference, timeout_s=grader.timeout_s)
        if "equal" not in plain:
            return ungraded(f"the reference cannot be compared with a plain number: {plain['reason']}")
    elif "equal" not in said:
        return ungraded(said["reason"])
    return scored(said.pop("equal", False), **said)
