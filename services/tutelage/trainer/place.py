"""Where this process stands among those that torchrun started together. Read from the environment; no torch yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Place:
    """rank: of `size` processes; local_rank: among those of this machine; restarts: how often all were started again"""

    rank: int = 0
    local_rank: int = 0
    size: int = 1
    restarts: int = 0

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """As torchrun says; without it a process is alone."""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
        rank, local_rank, size, restarts = (environment.get(name) for name in names)
        return cls(int(rank or 0), int(local_rank or 0), int(size or 1), int(restarts or 0))
