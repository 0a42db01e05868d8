"""AdamW's moments on disk, a file of each rank: torch.distributed.checkpoint in safetensors.

Any number of ranks reads what any number wrote, one process among them: each finds in the files what it needs. Its
format of pickles is not used.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tutelage.trainer.moments import WHOLE
from tutelage.trainer.optimizer import MOMENTS, Optimizer

FOLDER = "optimizer"


def write(optimizer: Optimizer, folder: Path) -> None:
    """The own ones of this rank, which all ranks do together.

    Raises:
        OSError: the disk refuses one of them.
    """
    writer = HuggingFaceStorageWriter(str(folder / FOLDER), save_distributed=True)
    try:
        save(optimizer.tensors(), storage_writer=writer)
    except CheckpointException as error:
        raise OSError("; ".join(str(each) for each, _ in error.failures.values())) from error


def read(optimizer: Optimizer, folder: Path, *, together: bool) -> None:
    """What either wrote. together: all ranks do it, each for its own shards"""
    reader = HuggingFaceStorageReader(str(folder if (folder / WHOLE).exists() else folder / FOLDER))
    there = reader.read_metadata().state_dict_metadata
    tensors = {name: blank for name, blank in _blank(optimizer).items() if name in there}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as is meant
        load(tensors, storage_reader=reader, no_dist=not together)
    optimizer.restore(tensors)


def _blank(optimizer: Optimizer) -> dict[str, Tensor]:
    """Moments of every parameter, to be read into."""
    found: dict[str, Tensor] = {}
    for name, parameter in optimizer.trained.items():
        found |= {f"{key}/{name}": torch.zeros_like(parameter, requires_grad=False) for key in MOMENTS if key != "step"}
        found[f"step/{name}"] = torch.zeros(())
    return found
