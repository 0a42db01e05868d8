"""Memory that one pass after another computes in: fresh pages cost a processor as much as what is written to them."""

from __future__ import annotations

import math
from threading import Lock

import torch
from torch import Tensor


class Workspace:
    """Rooms by name, each as large as the largest that was asked of it. `lock` is held by the pass that computes."""

    def __init__(self) -> None:
        self.lock = Lock()
        self._rooms: dict[str, Tensor] = {}

    def room(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """Room of the shape where `like` is; what is in it is whatever was left there."""
        size = math.prod(shape)
        held = self._rooms.get(name)
        if held is None or held.numel() < size or (held.dtype, held.device) != (dtype, like.device):
            self._rooms.pop(name, None)
            del held  # before the larger one is there
            held = self._rooms[name] = like.new_empty(size, dtype=dtype)
        return held[:size].view(shape)
