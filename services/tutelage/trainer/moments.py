"""AdamW's moments on disk: one file where one process holds them, in `shards` where several do."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file

from tutelage.trainer.optimizer import Optimizer

WHOLE = "optimizer.safetensors"


def write(optimizer: Optimizer, folder: Path) -> None:
    save_file(optimizer.tensors(), folder / WHOLE)


def read(optimizer: Optimizer, folder: Path) -> None:
    """What one process wrote, or several."""
    if (folder / WHOLE).exists():
        optimizer.restore(load_file(folder / WHOLE))
        return
    from tutelage.trainer import shards  # here, because it costs every start two seconds

    shards.read(optimizer, folder, together=False)
