"""The processes of this one that grade, as the kernel lists them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def grading(module: str) -> set[int]:
    """Those of this module of `sandbox`."""
    found = set[int]()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread or a process that has just ended
            for pid in (task / "children").read_text().split():
                if f"tutelage.sandbox.{module} ".encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(int(pid))
    return found
