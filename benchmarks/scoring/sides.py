"""Both sides of the scoring benchmark: a random model, the question, and the answer by our parts and by padded rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from tutelage.engines.encoding import Encoder
from tutelage.engines.head import Head
from tutelage.engines.options import HfOptions
from tutelage.engines.signals import Question, answer
from tutelage_client.wire import ScoreGroup, Signal

PROMPT, MEDIAN, SPREAD, LONGEST = 512, 128, 1.0, 1024


class Size(NamedTuple):
    """Of the random model."""

    hidden: int
    layers: int
    vocabulary: int


def made(size: Size) -> Any:
    """A random Qwen3 of that size."""
    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=3 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 32,
        num_key_value_heads=size.hidden // 64,
        head_dim=32,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    return Qwen3ForCausalLM(config).eval()


def asked(prompts: int, completions: int, vocabulary: int) -> list[ScoreGroup]:
    """Groups of so many completions each with log-normal lengths, the longest of them cut."""
    draw = np.random.default_rng(0)

    def group() -> ScoreGroup:
        lengths = np.clip(draw.lognormal(np.log(MEDIAN), SPREAD, completions).astype(int), 1, LONGEST)
        rows = [{"token_ids": draw.integers(vocabulary, size=n)} for n in lengths]
        return ScoreGroup.model_validate({"prompt_ids": draw.integers(vocabulary, size=PROMPT), "completions": rows})

    return [group() for _ in range(prompts)]


@torch.inference_mode()
def encoded(model: Any, groups: Sequence[ScoreGroup]) -> Tensor:
    """Hidden states of all completion tokens, as the engine takes them."""
    return Encoder(model.base_model, lambda output: output.last_hidden_state, 0, shares=True).states(groups)


@torch.inference_mode()
def ours(model: Any, groups: Sequence[ScoreGroup]) -> Tensor:
    """Log-probabilities of all completion tokens, by the parts that the engine is made of, in this thread."""
    question = Question(groups, frozenset({Signal.SAMPLED}), None)
    tile_bytes = HfOptions(model="here").logit_tile_bytes
    head = Head(model.get_output_embeddings().weight)
    blocks = answer(question, encoded(model, groups), head.logits, tile_bytes // (4 * model.config.vocab_size))
    return torch.cat([torch.from_numpy(block.arrays()["sampled_logprob"]) for block in blocks])


@torch.inference_mode()
def padded(model: Any, groups: Sequence[ScoreGroup], logits_from: int) -> Tensor:
    """The same by whole rows, padded to their group's longest."""
    parts: list[Tensor] = []
    for group in groups:
        rows = [torch.from_numpy(np.concatenate([group.prompt_ids, c.token_ids])).long() for c in group.completions]
        ids_RT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask_RT = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        keep = ids_RT.shape[1] - logits_from
        logits_RTV = model(input_ids=ids_RT, attention_mask=mask_RT, use_cache=False, logits_to_keep=keep).logits
        chosen_RT = logits_RTV[:, :-1].gather(-1, ids_RT[:, logits_from + 1 :, None])[..., 0]
        logprob_RT = chosen_RT - logits_RTV[:, :-1].logsumexp(-1)
        first = PROMPT - 1 - logits_from
        parts += [logprob[first : first + len(row) - PROMPT] for logprob, row in zip(logprob_RT, rows, strict=True)]
    return torch.cat(parts)
