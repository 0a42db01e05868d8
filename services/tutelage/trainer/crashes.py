"""Points at which a trainer can be told to die, so that tests can show that nothing is lost there.

Without that setting nothing happens at any of them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from enum import StrEnum


class CrashPoint(StrEnum):
    """In the order of a step that ends with a checkpoint."""

    AFTER_SCORE_FETCH = "after_score_fetch"
    AFTER_BACKWARD = "after_backward"
    AFTER_OPTIMIZER_STEP = "after_optimizer_step"
    BEFORE_SAVE = "before_save"
    MID_SAVE = "mid_save"
    AFTER_RENAME = "after_rename"
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    BEFORE_ACK = "before_ack"


CRASH_AT = f"^({'|'.join(CrashPoint)})(:[1-9][0-9]*)?$"
Passing = Callable[[CrashPoint], None]


def pass_by(_point: CrashPoint) -> None:
    """What happens at every point of a process that was not told to die."""


def crashing(setting: str, epoch: int) -> Passing:
    """Dies by SIGKILL when the run's first attempt comes to a point for the n-th time.

    setting: "POINT" or "POINT:N", as CRASH_AT has it; epoch: of this attempt, later ones than the first live on
    """
    name, _, number = setting.partition(":")
    left = int(number or "1")

    def passing(point: CrashPoint) -> None:
        nonlocal left
        left -= point == name
        if epoch == 1 and point == name and left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return passing
