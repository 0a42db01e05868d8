"""How a trainer ends: the contract between it and whatever started it."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Only CRASHED and signals are worth another attempt; after DRAINED the run waits for one."""

    DONE = 0
    USER_ERROR = 64
    TEACHER_LOST = 69
    CRASHED = 70
    DRAINED = 75
    FENCED = 86
