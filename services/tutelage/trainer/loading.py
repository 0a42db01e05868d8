"""The student of a spec: its model, its adapters where it has them, and the anchor where the objective wants one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from tutelage.engines.head import proven_head
from tutelage.engines.loading import load_model, pick_device
from tutelage.engines.tokenizer import load_tokenizer
from tutelage.trainer.student import Student
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import Lora, RunSpec


def load_student(folder: Path | str, spec: RunSpec) -> Student:
    """The student of a spec, ready to sample and learn.

    Raises:
        InvalidInput: no such model, pickled weights, or an output head that is not a plain linear layer.
    """
    torch.manual_seed(spec.seed)  # LoRA's first weights are drawn
    device = pick_device("auto")
    try:
        base = load_model(str(folder), spec.student.revision, "float32", device)
        tokenizer = load_tokenizer(folder, spec.student.revision)
    except InvalidInput as error:
        raise InvalidInput(f"student.model: {error.message}", "student.model") from error
    head = proven_head(base)
    if head is None:
        raise InvalidInput(
            "student.model: its output head is not a linear layer on its last hidden state", "student.model"
        )
    if spec.student.lora is not None:
        return Student(_with_adapters(base, spec.student.lora), head, tokenizer, spec)
    return Student(
        base, head, tokenizer, spec, copy.deepcopy(base).requires_grad_(False) if spec.needs_reference else None
    )


def _with_adapters(base: Any, lora: Lora) -> Any:
    from peft import LoraConfig, get_peft_model  # here, because it costs every start two seconds

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)
