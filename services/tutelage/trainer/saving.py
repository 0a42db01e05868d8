"""A student on disk: what a checkpoint holds of it, and the model that a run ends with. Safetensors only."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tutelage.trainer.student import Student


def write(student: Student, folder: Path) -> None:
    """`model/` as transformers or peft load it, and the moments of AdamW."""
    student.model.save_pretrained(folder / "model")
    student.tokenizer.save_pretrained(folder / "model")
    student.write_moments(folder)


def size(student: Student) -> int:
    """Bytes that `write` takes, but for what describes the model: the weights, and two moments of those that learn."""
    weights = student.trained.values() if student.spec.student.lora else student.model.parameters()
    return sum(p.nbytes for p in weights) + 2 * sum(p.nbytes for p in student.trained.values())


def read(student: Student, folder: Path, step: int) -> None:
    """Put the student where it stood when `write` wrote it at `step`."""
    read_weights(student, folder)
    student.step = step
    student.read_moments(folder)


def read_weights(student: Student, folder: Path) -> None:
    """Of all its parameters, or of its adapters."""
    weights: dict[str, Tensor] = {}
    for path in sorted((folder / "model").glob("*.safetensors")):
        weights |= load_file(path)
    if student.spec.student.lora:
        from peft import set_peft_model_state_dict  # here, because it costs every start two seconds

        set_peft_model_state_dict(student.model, weights)
    else:
        student.model.load_state_dict(weights, strict=False)  # a tied head is saved once


def export(student: Student, folder: Path) -> None:
    """The final model in the spec's dtype, adapters merged: a directory that transformers loads."""
    merged_model = student.model.merge_and_unload() if student.spec.student.lora else student.model
    merged_model.to(getattr(torch, student.spec.student.dtype)).save_pretrained(folder)
    student.tokenizer.save_pretrained(folder)
