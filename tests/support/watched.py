"""The memory of every process of a soak, from its first look at it to its last, beside what it may be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psutil

from tutelage_client.history import out_of_bounds

WARM_S, LONG_S = 20.0, 45.0
MEMORY_MIB: dict[str, tuple[float, float]] = {  # by kind of process, at most: growth of one that is warm, and in all
    "queue": (16, 64),
    "coordinator": (32, 400),
    "teacher": (32, 900),
    "waiting trainer": (16, 900),
    "trainer": (64, 1200),
}


@dataclass
class Memory:
    """One process from its first look to its last. at_work_s: when it was first seen at work"""

    name: str
    seen_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    at_work_s: float | None = None

    def note(self, at_s: float, mib: float, *, at_work: bool) -> None:
        self.seen_s.append(at_s)
        self.mib.append(mib)
        if at_work and self.at_work_s is None:
            self.at_work_s = at_s

    @property
    def lived_s(self) -> float:
        return self.seen_s[-1] - self.seen_s[0]

    @property
    def worked_long(self) -> bool:
        return self.at_work_s is not None and self.seen_s[-1] - self.at_work_s >= LONG_S

    @property
    def kind(self) -> str:
        return self.name.rstrip(" 0123456789")

    @property
    def warm_mib(self) -> float:
        """When it had been at work for a while; the last look at one that was not."""
        began_s = self.seen_s[-1] if self.at_work_s is None else self.at_work_s
        warm = (mib for s, mib in zip(self.seen_s, self.mib, strict=True) if s - began_s >= WARM_S)
        return next(warm, self.mib[-1])


class Watched:
    """All of them by their number."""

    def __init__(self) -> None:
        self.memory: dict[int, Memory] = {}

    def look(self, processes: Iterable[tuple[str, psutil.Process, bool]], at_s: float) -> None:
        for name, process, at_work in processes:
            try:
                mib = process.memory_info().rss / 2**20
            except psutil.Error:
                continue
            self.memory.setdefault(process.pid, Memory(name)).note(at_s, mib, at_work=at_work)

    def broken(self) -> Iterator[str]:
        """Every process that took too much."""
        for each in self.memory.values():
            growth, most = MEMORY_MIB[each.kind]
            yield from out_of_bounds(f"the memory of {each.name} in MiB", each.mib, most)
            if each.worked_long:
                yield from out_of_bounds(f"the growth of {each.name} in MiB", [each.mib[-1] - each.warm_mib], growth)

    def told(self, kind: str) -> dict[str, Any]:
        """Of the processes of one kind, the one that lived longest, and the largest growth of any that lived long."""
        every = [each for each in self.memory.values() if each.kind == kind]
        longest = max(every, key=lambda each: each.lived_s)
        grown = [each.mib[-1] - each.warm_mib for each in every if each.worked_long]
        growth, most = MEMORY_MIB[kind]
        figures = {"start_mib": longest.warm_mib, "end_mib": longest.mib[-1], "growth_mib": max(grown, default=None)}
        rounded: dict[str, Any] = {name: None if mib is None else round(mib, 1) for name, mib in figures.items()}
        peak = round(max(max(each.mib) for each in every), 1)
        seen = {round(at_s / 60): round(mib, 1) for at_s, mib in zip(longest.seen_s, longest.mib, strict=True)}
        rounded |= {"by_minute_mib": list(seen.values())}
        told = {"process": kind, "processes": len(every), "lived_s": round(longest.lived_s), **rounded}
        return told | {"most_mib": peak, "growth_limit_mib": growth, "limit_mib": most}
