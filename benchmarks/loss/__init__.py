"""A full-vocabulary divergence from hidden states, forward and backward, beside what else computes it.

Ours and a peer run in two fresh processes a cell, in turn, each with torch's own choice of threads; the one that does
not run waits for its next command. All sides get the same hidden states, heads and divergence (generalised JSD, the one
that all peers have) and give its sum over the rows. `equal` compares loss and gradients; those of `dense` where the
peer, the products alone, has none.

Peers from `make bench-peers` are TRL's chunked divergence and Liger's chunked loss. Those from our own environment are
`dense` (whole logits, autograd) and `gemm`: the matrix products alone, the roofline, whose ratio is the part of it that
is reached. `extra_mb` is the most that lives at once beyond hidden states, heads and their gradients; `cpu_ms` is the
processor time of a pass over all threads, which other programs on the machine disturb less than its duration.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.loss.side import HINT, OURS, PEERS, Figures, Side, agree, available, version
from benchmarks.measure import Cell, interval, load_1min, paired


class Shape(NamedTuple):
    """Rows, hidden size of both models, vocabulary."""

    rows: int
    hidden: int
    vocabulary: int


class Plan(NamedTuple):
    """What one cell measures: our side and a peer's on one shape, as often as `pairs` says."""

    name: str
    shape: Shape
    peer: str
    pairs: int
    ours: str = "ours"
    beta: float = 0.5
    dtype: str = "float32"
    frozen: bool = False
    peer_frozen: bool | None = None

    def settings(self, side: str, *, frozen: bool) -> dict[str, Any]:
        given = {"side": side, "beta": self.beta, "dtype": self.dtype, "frozen": frozen, "threads": threads()}
        return given | self.shape._asdict()


SMALL, LARGE = Shape(2048, 512, 32_768), Shape(2048, 512, 151_936)
FEWER_ROWS = Shape(512, 512, 151_936)
FULL = [
    *(Plan("V=32k", SMALL, peer, 5) for peer in ("trl", "liger", "dense", "gemm")),
    *(Plan("V=152k", LARGE, peer, 3) for peer in ("trl", "liger", "gemm", "dense")),
    Plan("V=152k, 512 rows", FEWER_ROWS, "liger", 3),
    Plan("V=32k, frozen head", SMALL, "ours", 5, frozen=True, peer_frozen=False),
    *(Plan("V=32k, frozen head", SMALL, peer, 5, frozen=True) for peer in ("trl", "liger", "gemm")),
    *(Plan("V=32k, bfloat16", SMALL, peer, 3, dtype="bfloat16") for peer in ("trl", "liger", "dense")),
    Plan("V=32k, with metrics", SMALL, "ours", 5, ours="with_metrics"),
    Plan("V=32k, reverse KL", SMALL, "trl", 3, beta=1.0),
]
TINY = Shape(256, 32, 2000)
SHORT = [
    *(Plan("V=2k", TINY, peer, 2) for peer in ("trl", "liger", "dense", "gemm")),
    Plan("V=2k, bfloat16", TINY, "dense", 2, dtype="bfloat16"),
    Plan("V=2k, frozen head", TINY, "ours", 2, frozen=True, peer_frozen=False),
]


def loss(*, short: bool) -> Iterator[Cell]:
    """The cells as they are measured; those of peers that are not installed are left out."""
    if not available():
        print(HINT)
    for plan in SHORT if short else FULL:
        if plan.peer in OURS or available():
            yield measured(plan)


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))


def measured(plan: Plan) -> Cell:
    frozen = plan.frozen if plan.peer_frozen is None else plan.peer_frozen
    with tempfile.TemporaryDirectory(prefix="tutelage-loss-") as name:
        folder = Path(name)
        with (
            Side(plan.settings(plan.ours, frozen=plan.frozen), folder) as mine,
            Side(plan.settings(plan.peer, frozen=frozen), folder) as other,
        ):
            outcomes = mine.outcome(), other.outcome()
            times = paired(mine.run, other.run, plan.pairs)
        own, theirs = (
            Figures(outcome, wall, [1000 * s for s in side.cpu_s[1:]])  # the first did not count
            for outcome, wall, side in zip(outcomes, times, (mine, other), strict=True)
        )
        known = theirs.outcome
        if plan.peer == "gemm":
            with Side(plan.settings("dense", frozen=frozen), folder) as reference:
                known = reference.outcome()
        return compared(plan, own, theirs, equal=agree(own.outcome, known, plan.dtype))


def compared(plan: Plan, own: Figures, theirs: Figures, *, equal: bool) -> Cell:
    ratios = [other / mine for mine, other in zip(own.times_ms, theirs.times_ms, strict=True)]
    settings = plan.shape._asdict() | {"beta": plan.beta, "dtype": plan.dtype, "threads": threads()}
    return Cell(
        cell=plan.name,
        peer={"name": PEERS[plan.peer], "version": version(plan.peer), "settings": settings | {"pairs": plan.pairs}},
        ours=statistics.median(own.times_ms),
        theirs=statistics.median(theirs.times_ms),
        ratio=statistics.median(ratios),
        ci=interval(ratios),
        equal=equal,
        counted=counted(own, theirs, has_loss=plan.peer != "gemm"),
    )


def counted(own: Figures, theirs: Figures, *, has_loss: bool) -> dict[str, float]:
    """Processor time, memory, the losses, and how many programs wanted to run when the cell ended."""
    cpu = statistics.median(own.cpu_ms), statistics.median(theirs.cpu_ms)
    figures = {"cpu_ms_ours": cpu[0], "cpu_ms_theirs": cpu[1], "cpu_ratio": cpu[1] / cpu[0]}
    figures |= {"extra_mb_ours": own.outcome.extra_bytes / 1e6, "loss_ours": own.outcome.loss}
    if has_loss:
        figures |= {"extra_mb_theirs": theirs.outcome.extra_bytes / 1e6, "loss_theirs": theirs.outcome.loss}
        figures["extra_ratio"] = theirs.outcome.extra_bytes / own.outcome.extra_bytes
    return figures | {"load_1min": load_1min()}
