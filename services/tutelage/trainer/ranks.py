"""The processes of one run that torchrun started together, and how they speak to each other.

What they say goes as Python objects, which torch pickles: they are one program on one private network, and trust each
other as torch.distributed does in all that it sends. Nothing from outside comes that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from tutelage.trainer.place import Place

T = TypeVar("T")
# A rank waits for its next order for as long as the run waits for a teacher. That another rank died is told by its
# connections, not by this.
ORDER_WAIT = timedelta(days=365)


class Ranks:
    """place: of this process among them"""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._group: Any = distributed.new_group(backend="gloo", timeout=ORDER_WAIT)

    @classmethod
    def joined(cls, place: Place) -> Ranks:
        """Waits until all are there. Tensors go by gloo between processors, by NCCL between GPUs."""
        backend = "cpu:gloo"
        if torch.cuda.is_available():
            torch.cuda.set_device(place.local_rank)
            backend += ",cuda:nccl"
        store, rank, size = next(rendezvous("env://"))
        # torchrun's store outlives a restart, and with it the addresses of ranks that are dead.
        own = PrefixStore(f"attempt-{place.restarts}", store)
        distributed.init_process_group(backend, store=own, rank=rank, world_size=size)
        return cls(place)

    def scattered(self, parts: Sequence[T] | None) -> T:
        """The own part of what rank 0 hands out, one for each; the others give None and wait."""
        own: list[Any] = [None]
        distributed.scatter_object_list(own, None if parts is None else list(parts), group=self._group)
        return own[0]

    def gathered(self, own: T) -> list[T]:
        """What each rank gives, in their order."""
        found: list[Any] = [None] * self.place.size
        distributed.all_gather_object(found, own, group=self._group)
        return found

    def leave(self) -> None:
        distributed.destroy_process_group()
