"""Scoring given completions: the `hf` engine beside plain transformers forwards of the same model, on the same tokens.

G completions a prompt of P tokens, their lengths log-normal. Peers are padded forwards of the rows of one prompt:
`padded` computes logits everywhere, as a call of the model does; `response rows only` spares the head the prompt
(`logits_to_keep`). Both take the log-probability by log-sum-exp. `gflops` are those of all matrix products, attention's
left out on every side since torch does not count it on a CPU; `predicted` is their ratio, what counting promises, and
`reached` the part of it that was measured. `peak_mb` is the most that lives at once beyond the model, by the
allocator's events; `encoding_mb_ours` what ours holds at most before the head comes in.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import Cell, interval, load_1min, paired
from benchmarks.memory import peak_bytes
from benchmarks.scoring.sides import PROMPT, Size, asked, encoded, made, ours, padded
from tutelage_client.wire import ScoreGroup

PEERS = {"padded": 0, "response rows only": PROMPT - 1}  # name: the first position that gets logits


class Plan(NamedTuple):
    """One cell: a model, the completions a prompt, and the peer."""

    size: Size
    completions: int
    peer: str
    pairs: int
    prompts: int = 2


LARGE, NARROW = Size(256, 4, 32_768), Size(256, 4, 8192)
FULL = [
    Plan(LARGE, 8, "padded", 7),
    Plan(LARGE, 8, "response rows only", 7),
    Plan(LARGE, 16, "padded", 3),
    Plan(NARROW, 8, "padded", 3),
    Plan(NARROW, 16, "padded", 3),
]
TINY = Size(64, 1, 2048)
SHORT = [Plan(TINY, 8, peer, 2, prompts=1) for peer in PEERS]


def scoring(*, short: bool) -> list[Cell]:
    """The cells, with processor time, memory and counted work beside the duration."""
    return [measured(plan) for plan in (SHORT if short else FULL)]


def measured(plan: Plan) -> Cell:
    model = made(plan.size)
    groups = asked(plan.prompts, plan.completions, plan.size.vocabulary)
    mine, other = partial(ours, model, groups), partial(padded, model, groups, PEERS[plan.peer])
    cpu_ms: tuple[list[float], list[float]] = ([], [])
    times = paired(timed(mine, cpu_ms[0]), timed(other, cpu_ms[1]), plan.pairs)
    ratios = [t / o for o, t in zip(*times, strict=True)]
    ratio = statistics.median(ratios)
    settings = plan.size._asdict() | {"dtype": "float32", "threads": torch.get_num_threads()}
    settings |= {"prompts": plan.prompts, "pairs": plan.pairs}
    return Cell(
        cell=f"G={plan.completions}, P={PROMPT}, V={plan.size.vocabulary}",
        peer={
            "name": plan.peer,
            "version": f"transformers {transformers.__version__}",
            "settings": plan.size._asdict() | settings,
        },
        ours=statistics.median(times[0]),
        theirs=statistics.median(times[1]),
        ratio=ratio,
        ci=interval(ratios),
        equal=bool(torch.allclose(mine(), other(), rtol=0, atol=1e-4)),
        counted=tokens(groups, *map(statistics.median, times))
        | {"cpu_ratio": statistics.median(cpu_ms[1][1:]) / statistics.median(cpu_ms[0][1:])}  # the first did not count
        | work(counted_flops(mine), counted_flops(other), ratio)
        | {"peak_mb_ours": peak_bytes(mine) / 1e6, "peak_mb_theirs": peak_bytes(other) / 1e6}
        | {"encoding_mb_ours": peak_bytes(partial(encoded, model, groups)) / 1e6, "load_1min": load_1min()},
    )


def tokens(groups: Sequence[ScoreGroup], ours_ms: float, theirs_ms: float) -> dict[str, float]:
    """Those that get a score, by the second, and those of the padded rows."""
    responses = sum(group.scored_tokens for group in groups)
    return {
        "response_tokens": responses,
        "padded_tokens": sum(group.longest * len(group.completions) for group in groups),
        "tokens_per_s_ours": 1000 * responses / ours_ms,
        "tokens_per_s_theirs": 1000 * responses / theirs_ms,
    }


def work(mine: int, other: int, ratio: float) -> dict[str, float]:
    """Floating-point operations of both sides, what they promise, and how much of it `ratio` keeps."""
    predicted = other / mine
    return {
        "gflops_ours": mine / 1e9,
        "gflops_theirs": other / 1e9,
        "predicted": predicted,
        "reached": ratio / predicted,
    }


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
