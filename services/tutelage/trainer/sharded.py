"""The student that learns in shards: FSDP2 over its blocks, a share of every step's text on each rank.

A rank holds a part of every weight, of its gradient and of its moments, and of the other weights no more than one block
at a time while it computes. `whole`, which writes, has all of them; what is outside the blocks and the head alone, the
loss takes from there, and its gradient is added over the ranks once a step.

Tensor parallelism would be a second dimension of the mesh: `parallelize_module` on the blocks before `fully_shard`,
and `Shard(0)` of `_settle` over both.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

from tutelage.trainer import shards
from tutelage.trainer.ranks import Ranks
from tutelage.trainer.student import Parts, Student
from tutelage.trainer.writer import inner
from tutelage_client.errors import InvalidInput


class Sharded(Student):
    """This rank's part of the student. `learn` is called by all ranks together, each with its share of the batches, as
    many as every other has."""

    def __init__(self, whole: Student, ranks: Ranks) -> None:
        self._mesh = init_device_mesh(whole.device.type, (ranks.place.size,), mesh_dim_names=("shard",))
        model = copy.deepcopy(whole.model)
        shard(model, self._mesh)
        super().__init__(model, whole.head, whole.tokenizer, whole.spec, whole.reference)
        self.whole = whole
        self._ranks = ranks
        of_head = {id(part) for part in (whole.head.weight, whole.head.bias) if part is not None}
        self._own_head = {name: p for name, p in whole.trained.items() if id(p) in of_head}

    def _settle(self) -> None:
        """The head's gradient, which each rank has of its own rows, as the shards of the sum."""
        for name, full in self._own_head.items():
            own = torch.zeros_like(full) if full.grad is None else full.grad
            summed = DTensor.from_local(own, self._mesh, [Partial()], run_check=False).redistribute(
                placements=[Shard(0)]
            )
            mine, full.grad = self.trained[name], None
            mine.grad = summed if mine.grad is None else mine.grad + summed  # tied: it has the embedding's too

    def _of_all(self, parts: Parts) -> Parts:
        """What every rank measured."""
        merged: Parts = {}
        for own in self._ranks.gathered(parts):
            for teacher, measured in own.items():
                merged.setdefault(teacher, []).extend(measured)
        return merged

    def write_moments(self, folder: Path) -> None:
        """The own ones."""
        shards.write(self.optimizer, folder)

    def read_moments(self, folder: Path) -> None:
        shards.read(self.optimizer, folder, together=True)

    @torch.no_grad()
    def publish(self) -> None:
        """Let `whole` be what all ranks have learned."""
        with self.whole.moving:
            for name, full in self.whole.trained.items():
                full.copy_(cast(DTensor, self.trained[name]).full_tensor())
            self.whole.step = self.step

    @torch.no_grad()
    def take_up(self) -> None:
        """The rank's part of the weights of `whole`."""
        for name, full in self.whole.trained.items():
            self.trained[name].copy_(distribute_tensor(full.detach(), self._mesh, [Shard(0)], src_data_rank=None))
        self.step = self.whole.step


def shard(model: Any, mesh: DeviceMesh) -> None:
    """In place: every block of the decoder by itself, the rest of the decoder together, the head.

    Raises:
        InvalidInput: a weight that learns lies outside these.
    """
    network = inner(model)
    decoder, head, embedding = network.base_model, network.get_output_embeddings(), network.get_input_embeddings()
    is_tied = head.weight is embedding.weight
    groups: Sequence[nn.Module] = [*blocks(network), decoder]
    for module in groups if is_tied else [*groups, head]:
        fully_shard(module, mesh=mesh)
    if is_tied:
        head.weight = embedding.weight
    for module in network.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # sums: the step divides once, by the tokens of all ranks
            module.set_force_sum_reduction_for_comms(True)
    outside = [name for name, p in _learning(model).items() if not isinstance(p, DTensor)]
    if outside:
        sentence = f"its weight {outside[0]} lies outside decoder and head, so ranks cannot share it"
        raise InvalidInput(f"student.model: {sentence}; train this model in one process", "student.model")


def blocks(network: Any) -> list[nn.Module]:
    """What the model's authors would not split over two devices: its layers."""
    names = set(network._no_split_modules or ())
    return [module for module in network.base_model.modules() if type(module).__name__ in names]


def _learning(model: Any) -> Mapping[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
