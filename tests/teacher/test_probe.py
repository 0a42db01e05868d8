"""The start-up probe: an honest engine passes, one that contradicts itself does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.probe import probe
from tutelage.teacher.batcher import Batcher
from tutelage.telemetry import TeacherMetrics
from tutelage_client.errors import BadScores
from tutelage_client.wire import ScoreGroup, Signal, TokenScores, Usage

Change = Callable[[TokenScores], dict[str, Any]]


class Dishonest(FakeEngine):
    """The toy engine with its answers changed by a function."""

    def __init__(
        self, change: Change, signals: frozenset[Signal] = frozenset(Signal), vocabulary_size: int = 32
    ) -> None:
        super().__init__(FakeOptions(vocabulary_size=vocabulary_size), "toy")
        self.capabilities = self.capabilities.model_copy(update={"signals": signals})
        self._change = change

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        blocks, usage = await super().score(groups, signals, top_k)
        return [block.model_copy(update=self._change(block)) for block in blocks], usage


@asynccontextmanager
async def batcher_of(engine: FakeEngine) -> AsyncGenerator[Batcher]:
    async with Batcher(engine, 1000, TeacherMetrics.of(CollectorRegistry())) as batcher:
        yield batcher


def unchanged(_: TokenScores) -> dict[str, Any]:
    return {}


def shifted_by_one(block: TokenScores) -> dict[str, Any]:
    return {} if block.sampled_logprob is None else {"sampled_logprob": np.roll(block.sampled_logprob, 1)}


def other_candidates(block: TokenScores) -> dict[str, Any]:
    return {} if block.candidate_logprob is None else {"candidate_logprob": block.candidate_logprob - 1}


def raised_top_k(block: TokenScores) -> dict[str, Any]:
    """Renormalised over the top k, which leaves the rest counted twice."""
    if block.topk_logprob is None:
        return {}
    return {"topk_logprob": block.topk_logprob - np.log(np.exp(block.topk_logprob).sum(1, keepdims=True))}


def lowered(nats: float) -> Change:
    """What a server's log-probs become where a term of the normaliser is missing; the rest is 1 less the top k."""

    def change(block: TokenScores) -> dict[str, Any]:
        changed = {name: array - nats for name, array in block.arrays().items() if name.endswith("_logprob")}
        if "topk_logprob" in changed:
            changed["topk_rest_mass"] = 1 - np.exp(changed["topk_logprob"]).sum(1)
        return changed

    return change


def other_where_improbable(block: TokenScores) -> dict[str, Any]:
    """Candidates by another model than the rest, which differs by no probability of more than 1 in 100."""
    logprob = block.candidate_logprob
    return {} if logprob is None else {"candidate_logprob": np.where(logprob < -5.5, logprob - 3, logprob)}


@pytest.mark.parametrize("vocabulary_size", [2, 5, 32])
@pytest.mark.parametrize(
    "signals",
    [
        frozenset(Signal),
        frozenset({Signal.SAMPLED}),
        frozenset({Signal.TOP_K}),
        frozenset({Signal.TOP_K, Signal.CANDIDATES}),
        frozenset({Signal.ENTROPY}),
        frozenset[Signal](),
    ],
)
async def test_an_honest_engine_passes_with_any_signals(signals: frozenset[Signal], vocabulary_size: int) -> None:
    engine = Dishonest(unchanged, signals, vocabulary_size)
    async with batcher_of(engine) as batcher:
        found = await probe(batcher, engine)
    assert all(value < 1e-4 for name, value in found.items() if name.startswith("worst"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (shifted_by_one, "disagree"),
        (other_candidates, "candidates disagree"),
        (other_where_improbable, r"candidates disagree.*a log-probability is off by 3 nats"),
        (raised_top_k, "do not add up to 1"),
        (lowered(2), r"not normalised: the \d+ most probable of 32 tokens leave room"),
    ],
)
async def test_an_engine_that_contradicts_itself_fails_with_the_reason(change: Change, said: str) -> None:
    engine = Dishonest(change)
    async with batcher_of(engine) as batcher:
        with pytest.raises(BadScores, match=said):
            await probe(batcher, engine)


async def test_a_row_is_added_up_over_the_whole_vocabulary_where_each_token_can_be_asked_about() -> None:
    engine = Dishonest(lowered(0.3), vocabulary_size=400)
    engine.capabilities = engine.capabilities.model_copy(update={"max_top_k": 30})
    async with batcher_of(engine) as batcher:
        with pytest.raises(BadScores, match=r"not normalised: the probabilities of all 400 tokens add up to 0\.741"):
            await probe(batcher, engine)
