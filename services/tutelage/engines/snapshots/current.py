"""The contract of a model that writes what its newest snapshot would."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from tutelage_client.wire import SampledText, SampleRequest, SnapshotRef

# The texts that ended at one moment, each with the place of its request among those that were given.
Ended = list[tuple[int, SampledText]]


class Current(Protocol):
    """One model. It loads, and then writes, one call at a time."""

    async def load(self, ref: SnapshotRef) -> None:
        """Hold these weights, proven by the known sequence; nothing is done where it holds them already.

        Raises:
            SnapshotGone: they are there no more. SnapshotRefused: it cannot be brought to hold them.
            TutelageError: it cannot be reached.
        """
        ...

    def write(self, requests: Sequence[SampleRequest]) -> AsyncGenerator[Ended]:
        """The texts as they end, all of the snapshot that was loaded.

        Raises:
            TutelageError: one cannot be written.
        """
        ...

    async def close(self) -> None: ...
