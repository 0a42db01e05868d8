"""Whether a process was killed for memory: the kernel counts that for the control group, in both of its versions."""

from __future__ import annotations

from pathlib import Path

_MOUNT = Path("/sys/fs/cgroup")


def kills() -> int | None:
    """Processes of this one's group that were killed because its memory was at its limit; None: nobody counts."""
    for counters in _counters(Path("/proc/self/cgroup").read_text()) if _MOUNT.exists() else ():
        if counters.exists():
            told = dict(line.split() for line in counters.read_text().splitlines())
            if "oom_kill" in told:
                return int(told["oom_kill"])
    return None


def _counters(groups: str) -> list[Path]:
    """Where the counter may be: of the group by its name, or of the mount where a container sees its own group alone.

    groups: /proc/self/cgroup, a line ID:CONTROLLERS:PATH for each hierarchy
    """
    found: list[Path] = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found += [_MOUNT / "memory" / place / "memory.oom_control" for place in (path.lstrip("/"), "")]
        elif not controllers:
            found += [_MOUNT / place / "memory.events" for place in (path.lstrip("/"), "")]
    return found
