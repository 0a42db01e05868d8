"""Scoring given completions: the `hf` engine beside plain transformers forwards of the same model, on the same tokens.

Eight completions a prompt of 512 tokens, their lengths log-normal. Peers are padded forwards of the eight rows of one
prompt: `padded` computes logits everywhere, as a call of the model does; `response rows only` spares the head the
prompt (`logits_to_keep`). Both take the log-probability by log-sum-exp. `gflops` are those of all matrix products,
attention's left out on every side since torch does not count it on a CPU; `predicted` is their ratio, what counting
promises, and `reached` the part of it that was measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.measure import Cell, interval, paired
from tutelage.engines.encoding import Encoder
from tutelage.engines.head import Head
from tutelage.engines.options import HfOptions
from tutelage.engines.signals import Question, answer
from tutelage_client.wire import ScoreGroup, Signal

PROMPT, COMPLETIONS, MEDIAN, SPREAD, LONGEST = 512, 8, 128, 1.0, 1024


def scoring(*, short: bool) -> list[Cell]:
    """Cells of the two peers, with processor time and counted work beside the duration."""
    torch.manual_seed(0)
    model = made(hidden=64, layers=1, vocabulary=2048) if short else made(hidden=256, layers=4, vocabulary=32_768)
    groups = asked(prompts=1 if short else 2, vocabulary=model.config.vocab_size)
    return [
        cell(name, model, groups, logits_from, repetitions=2 if short else 7)
        for name, logits_from in (("padded", 0), ("response rows only", PROMPT - 1))
    ]


def made(hidden: int, layers: int, vocabulary: int) -> Any:
    """A random Qwen3 of that size."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        head_dim=32,
        max_position_embeddings=4096,
    )
    return Qwen3ForCausalLM(config).eval()


def asked(prompts: int, vocabulary: int) -> list[ScoreGroup]:
    """Groups of completions with log-normal lengths, the longest of them cut."""
    draw = np.random.default_rng(0)

    def group() -> ScoreGroup:
        lengths = np.clip(draw.lognormal(np.log(MEDIAN), SPREAD, COMPLETIONS).astype(int), 1, LONGEST)
        completions = [{"token_ids": draw.integers(vocabulary, size=n)} for n in lengths]
        return ScoreGroup.model_validate(
            {"prompt_ids": draw.integers(vocabulary, size=PROMPT), "completions": completions}
        )

    return [group() for _ in range(prompts)]


def cell(name: str, model: Any, groups: list[ScoreGroup], logits_from: int, repetitions: int) -> Cell:
    mine, other = partial(ours, model, groups), partial(padded, model, groups, logits_from)
    cpu_ms: tuple[list[float], list[float]] = ([], [])
    times = paired(timed(mine, cpu_ms[0]), timed(other, cpu_ms[1]), repetitions)
    ratios = [t / o for o, t in zip(*times, strict=True)]
    tokens = sum(group.scored_tokens for group in groups)
    flops = counted_flops(mine), counted_flops(other)
    cpu = statistics.median(cpu_ms[0][1:]), statistics.median(cpu_ms[1][1:])  # the first did not count
    predicted, ratio = flops[1] / flops[0], statistics.median(ratios)
    settings = {"dtype": "float32", "threads": torch.get_num_threads(), "pairs": repetitions}
    return Cell(
        cell=f"G={COMPLETIONS}, P={PROMPT}",
        peer={"name": name, "version": f"transformers {transformers.__version__}", "settings": settings},
        ours=statistics.median(times[0]),
        theirs=statistics.median(times[1]),
        ratio=ratio,
        ci=interval(ratios),
        equal=bool(torch.allclose(mine(), other(), rtol=0, atol=1e-4)),
        counted={
            "response_tokens": tokens,
            "padded_tokens": sum(group.longest * len(group.completions) for group in groups),
            "tokens_per_s_ours": 1000 * tokens / statistics.median(times[0]),
            "tokens_per_s_theirs": 1000 * tokens / statistics.median(times[1]),
            "cpu_ratio": cpu[1] / cpu[0],
            "gflops_ours": flops[0] / 1e9,
            "gflops_theirs": flops[1] / 1e9,
            "predicted": predicted,
            "reached": ratio / predicted,
        },
    )


@torch.inference_mode()
def ours(model: Any, groups: list[ScoreGroup]) -> Tensor:
    """Log-probabilities of all completion tokens, by the parts that the engine is made of, in this thread."""
    question = Question(groups, frozenset({Signal.SAMPLED}), None)
    encoder = Encoder(model.base_model, lambda output: output.last_hidden_state, 0, shares=True)
    tile_bytes = HfOptions(model="here").logit_tile_bytes
    head = Head(model.get_output_embeddings().weight)
    blocks = answer(question, encoder.states(groups), head.logits, tile_bytes // (4 * model.config.vocab_size))
    return torch.cat([torch.from_numpy(block.arrays()["sampled_logprob"]) for block in blocks])


@torch.inference_mode()
def padded(model: Any, groups: list[ScoreGroup], logits_from: int) -> Tensor:
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


def timed(call: Callable[[], Any], into_ms: list[float]) -> Callable[[], None]:
    """`call`, noting the processor time of all its threads."""

    def run() -> None:
        begun_s = time.process_time()
        call()
        into_ms.append(1000 * (time.process_time() - begun_s))

    return run


def counted_flops(call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
