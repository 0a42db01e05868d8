"""Whose turn it is, and whose work may wait. Turns: start-time fair queueing (Goyal, Vin and Cheng, 1996), in tokens.

Each owner's work is laid end to end on a line of its own, from where the service stands; what starts first goes first.
Work of one owner keeps its order, and an owner who asks for much delays nobody who asks for little.
"""

from __future__ import annotations

from collections.abc import Mapping


class FairLine:
    def __init__(self) -> None:
        self._served = 0.0
        self._ends: dict[str, float] = {}

    def place(self, owner: str, tokens: int) -> float:
        """Where new work starts on the line."""
        start = max(self._served, self._ends.get(owner, 0.0))
        self._ends[owner] = start + tokens
        return start

    def serve(self, start: float) -> None:
        """The work that starts there has been taken up."""
        self._served = max(self._served, start)

    def clear(self) -> None:
        """Nobody waits: whoever comes next starts level with all others."""
        self._served, self._ends = 0.0, {}


def lets_in(owner: str, waiting: Mapping[str, int], most: int) -> bool:
    """Whether more of `owner`'s may wait. When all room is taken, less than an equal share lets in.

    waiting: by owner, how much waits already; most: of all together
    """
    if sum(waiting.values()) < most:
        return True
    return waiting.get(owner, 0) < most / len({*waiting, owner})
