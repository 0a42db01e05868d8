"""What a fault takes that not every machine has, as data: small disks, strace, control groups, a hosted teacher."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import StrEnum


class Need(StrEnum):
    """What a stage is given before it is played on."""

    DISKS = "small disks"
    STRACE = "strace"
    MEMORY = "a control group of memory"
    HOSTED = "a hosted teacher"


ROOTS: dict[Need, tuple[str, ...]] = {  # root's alone, and the commands that it takes
    Need.DISKS: ("mount", "umount"),
    Need.STRACE: ("strace",),
    Need.MEMORY: ("sh",),
}


def lacking(need: Need, user: int, find: Callable[[str], str | None] = shutil.which) -> str | None:
    """Why somebody with this number cannot have it on this machine; None where he can."""
    if need not in ROOTS:
        return None
    if user != 0:
        return f"{need} is root's to give"
    missing = [command for command in ROOTS[need] if find(command) is None]
    return f"{need} takes {', '.join(missing)}, which is not installed" if missing else None
