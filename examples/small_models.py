"""What the demo's tasks share: a tokenizer of single characters, small Llama models, a training loop.

Seeds are fixed: the same torch on the same kind of processor makes the same files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """A model and its training. `steps` below `schedule` stop it early, which is the student's cold start."""

    hidden_size: int
    layers: int
    steps: int
    schedule: int
    lr: float
    seed: int
    heads: int = 4


def make_tokenizer(characters: str) -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *characters])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=128
    )
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.hidden_size * 5 // 2,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    recipe: Recipe,
    loss_of: Callable[[LlamaForCausalLM], torch.Tensor],
    accuracy: Callable[[LlamaForCausalLM], float],
    every: int = 250,
) -> None:
    """AdamW with 50 steps of warm-up and a cosine; `loss_of` draws a fresh batch, `accuracy` is printed on the way."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01)
    for step in range(recipe.steps):
        decay = 0.5 * (1 + math.cos(math.pi * step / recipe.schedule))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * min(1.0, (step + 1) / 50) * decay
        loss = loss_of(model)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % every == 0:
            print(f"  step {step + 1}: loss {loss.item():.4f}, accuracy {accuracy(model):.2f}", flush=True)


def padded(rows: list[list[int]], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Token ids [rows, longest], padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])


@torch.inference_mode()
def completions(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[str], max_new_tokens: int
) -> list[str]:
    """What the model writes after each prompt, sampled at temperature 1."""
    tokenizer.padding_side = "left"
    batch = tokenizer(prompts, return_tensors="pt", padding=True, return_token_type_ids=False)
    out = model.eval().generate(**batch, do_sample=True, top_k=0, max_new_tokens=max_new_tokens)
    model.train()
    tokenizer.padding_side = "right"
    return tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
