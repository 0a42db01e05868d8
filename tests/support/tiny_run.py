"""A run that takes seconds: a student of a few thousand weights that asks a toy teacher about what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.engines.fakes.tokenizer import write_tokenizer

VOCABULARY = 32
ROLLOUTS = 4  # of a step
PROMPTS = ("t7 t11 t13", "t9 t2 t23", "t5 t19 t3", "t29 t17 t2")


def tiny_spec(folder: Path) -> dict[str, Any]:
    """Six steps of a tiny student that asks the toy teacher for the log-probs of what it wrote."""
    student = folder / "student"
    write_tokenizer(student, VOCABULARY)
    torch.manual_seed(3)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    }
    config = LlamaConfig(
        **sizes,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(student)
    data = folder / "prompts.jsonl"
    data.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return {
        "name": "faulted",
        "seed": 5,
        "student": {"model": str(student)},
        "teachers": [{"name": "toy"}],
        "data": {"train": str(data)},
        "rollout": {"prompts_per_step": ROLLOUTS, "max_new_tokens": 6},
        "objective": {"kind": "divergence", "support": {"kind": "sampled"}},
        "optim": {"steps": 6, "lr": 1e-3},
        "checkpoint": {"every": 2},
        "eval": {"every": 100},
    }
