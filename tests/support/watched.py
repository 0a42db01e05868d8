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
    """One process from its first look to its last."""

    name: str
    seen_s: list[float] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)

    def note(self, at_s: float, mib: float) -> None:
        self.seen_s.append(at_s)
        self.mib.append(mib)

    @property
    def lived_s(self) -> float:
        return self.seen_s[-1] - self.seen_s[0]

    @property
    def kind(self) -> str:
        return self.name.rstrip(" 0123456789")

    @property
    def warm_mib(self) -> float:
        """When it had begun to work; the last look at one that lived shorter."""
        warm = (mib for s, mib in zip(self.seen_s, self.mib, strict=True) if s - self.seen_s[0] >= WARM_S)
        return next(warm, self.mib[-1])


class Watched:
    """All of them by their number."""

    def __init__(self) -> None:
        self.memory: dict[int, Memory] = {}

    def look(self, processes: Iterable[tuple[str, psutil.Process]], at_s: float) -> None:
        for name, process in processes:
            try:
                mib = process.memory_info().rss / 2**20
            except psutil.Error:
                continue
            self.memory.setdefault(process.pid, Memory(name)).note(at_s, mib)

    def broken(self) -> Iterator[str]:
        """Every process that took too much."""
        for each in self.memory.values():
            growth, most = MEMORY_MIB[each.kind]
            yield from out_of_bounds(f"the memory of {each.name} in MiB", each.mib, most)
            if each.lived_s >= LONG_S:
                yield from out_of_bounds(f"the growth of {each.name} in MiB", [each.mib[-1] - each.warm_mib], growth)

    def told(self, kind: str) -> dict[str, Any]:
        """Of the processes of one kind, the one that lived longest, and the largest growth of any that lived long."""
        every = [each for each in self.memory.values() if each.kind == kind]
        longest = max(every, key=lambda each: each.lived_s)
        grown = [each.mib[-1] - each.warm_mib for each in every if each.lived_s >= LONG_S]
        growth, most = MEMORY_MIB[kind]
        figures = {"start_mib": longest.warm_mib, "end_mib": longest.mib[-1], "growth_mib": max(grown, default=None)}
        rounded: dict[str, Any] = {name: None if mib is None else round(mib, 1) for name, mib in figures.items()}
        peak = round(max(max(each.mib) for each in every), 1)
        seen = {round(at_s / 60): round(mib, 1) for at_s, mib in zip(longest.seen_s, longest.mib, strict=True)}
        rounded |= {"by_minute_mib": list(seen.values())}
        told = {"process": kind, "processes": len(every), "lived_s": round(longest.lived_s), **rounded}
        return told | {"most_mib": peak, "growth_limit_mib": growth, "limit_mib": most}
