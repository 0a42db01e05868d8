"""The toy teacher fails on demand, and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from tutelage.engines import FakeOptions, open_engine
from tutelage_client.wire import ScoreGroup, Signal, TokenScores

GROUP = ScoreGroup.model_validate({"prompt_ids": [1, 2], "completions": [{"token_ids": [3, 4, 5]}]})


async def test_faults_come_in_order_and_then_no_more() -> None:
    engine = await open_engine(FakeOptions(faults=("none", "nan", "positive", "short", "error")), "t")

    async def ask() -> TokenScores:
        (block,), _ = await engine.score([GROUP], frozenset({Signal.SAMPLED}), None)
        return block

    good = await ask()
    for said in ("NaN in a row that is marked valid", "at most 0"):
        spoiled = await ask()
        with pytest.raises(ValidationError, match=said):
            TokenScores.model_validate(dict(spoiled))
    assert (await ask()).rows == good.rows - 1
    with pytest.raises(RuntimeError, match="told to fail"):
        await ask()
    assert (await ask()).arrays()["sampled_logprob"].tolist() == good.arrays()["sampled_logprob"].tolist()


def test_the_toy_teacher_needs_no_model_library() -> None:
    program = """
import asyncio, sys
from tutelage.engines import FakeOptions, open_engine
asyncio.run(open_engine(FakeOptions(), "t"))
sys.exit("torch" in sys.modules or "transformers" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_the_seed_is_the_model() -> None:
    engines = [await open_engine(FakeOptions(seed=seed), "t") for seed in (1, 1, 2)]
    weights = [engine.head()["weight"].tolist() for engine in engines]
    assert weights[0] == weights[1] != weights[2]
    assert engines[0].provenance == engines[1].provenance != engines[2].provenance
    assert len({engine.provenance.tokenizer_fingerprint for engine in engines}) == 1
