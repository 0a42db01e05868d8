"""The models of a spec: the student, its adapters where it has them, and the reference where something looks at one."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from tutelage.engines.head import Head, proven_head
from tutelage.engines.loading import load_model, pick_device
from tutelage.engines.tokenizer import load_tokenizer, tokenizer_fingerprint
from tutelage.trainer.student import Reference, Student
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import Lora, Model, RunSpec


def load_student(folder: Path | str, spec: RunSpec, reference: Path | str | None = None) -> Student:
    """The student of a spec, ready to sample and learn. reference: the folder of the model that the spec names as that.

    Raises:
        InvalidInput: no such model, pickled weights, an output head that is not a plain linear layer, or a reference
            that reads other tokens.
    """
    torch.manual_seed(spec.seed)  # LoRA's first weights are drawn
    base, head, tokenizer = _opened(folder, spec.student, "student.model")
    anchor = _reference(spec, reference, tokenizer)
    if spec.student.lora is not None:
        return Student(_with_adapters(base, spec.student.lora), head, tokenizer, spec, anchor)
    if anchor is None and spec.needs_reference:
        start = copy.deepcopy(base).requires_grad_(False)
        layer = start.get_output_embeddings()
        anchor = Reference(start, replace(head, weight=layer.weight, bias=layer.bias))
    return Student(base, head, tokenizer, spec, anchor)


def _reference(spec: RunSpec, folder: Path | str | None, tokenizer: PreTrainedTokenizerBase) -> Reference | None:
    """The model that the spec names as reference; None where it names none, or nothing looks at it."""
    if spec.reference is None or folder is None or not spec.needs_reference:
        return None
    model, head, own = _opened(folder, spec.reference, "reference.model")
    if tokenizer_fingerprint(own) != tokenizer_fingerprint(tokenizer):
        sentence = "its tokenizer is not the student's; log-ratios are per token, choose a model of the same family"
        raise InvalidInput(f"reference.model: {sentence}", "reference.model")
    return Reference(model.requires_grad_(False), head)


def _opened(folder: Path | str, model: Model, field: str) -> tuple[Any, Head, PreTrainedTokenizerBase]:
    try:
        base = load_model(str(folder), model.revision, "float32", pick_device("auto"))
        tokenizer = load_tokenizer(folder, model.revision)
    except InvalidInput as error:
        raise InvalidInput(f"{field}: {error.message}", field) from error
    head = proven_head(base)
    if head is None:
        raise InvalidInput(f"{field}: its output head is not a linear layer on its last hidden state", field)
    return base, head, tokenizer


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
