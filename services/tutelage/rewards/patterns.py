"""Regular expressions, searched for in a process: a search holds its whole interpreter up, and may never end."""

from __future__ import annotations

import re

from tutelage.rewards.outcomes import no_reference, scored
from tutelage.rewards.processes import Worker
from tutelage_client.wire import Pattern, Reward, RewardItem

SEARCHED = 10_000  # characters


async def pattern(grader: Pattern, item: RewardItem, worker: Worker) -> Reward:
    """1.0 where the pattern is found; with groups, where the first one equals the reference without outer white space.

    Only the last 10,000 characters of a completion are searched, and the first match there counts. A search that takes
    longer than `timeout_s` found nothing, or a student would do well to make searches long.

    Raises:
        NotAnswered: the machine is at fault.
    """
    groups = re.compile(grader.pattern).groups
    if groups and item.reference is None:
        return no_reference(grader)
    said = await worker.asked(grader.pattern, item.completion[-SEARCHED:], timeout_s=grader.timeout_s)
    if "outcome" in said:
        return scored(False, **said)
    if not groups or not said["found"] or item.reference is None:
        return scored(said["found"])
    group: str | None = said["group"]
    return scored(group is not None and group.strip() == item.reference.strip(), found=group)
