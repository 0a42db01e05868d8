"""What the contract of engines is held against: an engine, and the log-probs that it must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.engines import Engine, FakeOptions, HfOptions, ReplicatedOptions, UpstreamOptions, open_engine
from tutelage.engines.fake import FakeEngine
from tutelage.engines.fakes import Trap
from tutelage_client.wire import ScoreGroup, Signal

VOCABULARY = 97
# Kind of engine and traps of the fake server behind it, by name.
UPSTREAMS: dict[str, tuple[str, tuple[Trap, ...]]] = {
    "vllm": ("vllm", ()),
    "vllm-low-cap": ("vllm", ("low_cap",)),
    "vllm-0.31": ("vllm", ("flat_ids",)),
    "vllm-no-scale-out": ("vllm", ("scale_out_off",)),
    "sglang": ("sglang", ()),
    "openai": ("openai", ()),
    "openai-echo": ("openai", ("no_prompt_logprobs",)),
    "openai-echo-texts": ("openai", ("no_prompt_logprobs", "texts")),
}


@dataclass(frozen=True)
class Subject:
    """An engine and what its log-probs must be: `logprobs(ids)` is log q(. | ids[:i+1]) for each position i.

    shared: tokens forward and spared, of a prompt of 30 with completions of 2, 3 and 1
    """

    engine: Engine
    logprobs: Callable[[list[int]], NDArray[np.float64]]
    shared: tuple[int, int] = (30 + 1 + 2 + 0, 2 * 30)

    @property
    def signals(self) -> frozenset[Signal]:
        return self.engine.capabilities.signals

    @property
    def local(self) -> bool:
        return Signal.HIDDEN in self.signals


def group(prompt: list[int], completions: list[Any], candidates: list[Any] | None = None) -> ScoreGroup:
    """Completions of token ids, with candidate rows for each where given."""
    items = [{"token_ids": list(ids)} for ids in completions]
    for item, rows in zip(items, candidates or [], strict=bool(candidates)):
        item["candidate_ids"] = rows
    return ScoreGroup.model_validate({"prompt_ids": prompt, "completions": items})


def plain_forward(model: Any) -> Callable[[list[int]], NDArray[np.float64]]:
    @torch.no_grad()
    def logprobs(ids: list[int]) -> NDArray[np.float64]:
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()

    return logprobs


def toy_logprobs(seed: int = 0) -> Callable[[list[int]], NDArray[np.float64]]:
    table = FakeEngine(FakeOptions(vocabulary_size=VOCABULARY, seed=seed), "toy").logprob_VV
    return lambda ids: table[ids]


async def by_hand() -> Subject:
    """The toy's table of log-probs, read off through the signal `candidates` for every pair of tokens."""
    engine = await open_engine(FakeOptions(vocabulary_size=VOCABULARY), "toy")
    every = list(range(VOCABULARY))
    blocks, _ = await engine.score(
        [group([i], [(0,)], candidates=[[every]]) for i in every], frozenset({Signal.CANDIDATES}), None
    )
    table = np.concatenate([block.arrays()["candidate_logprob"] for block in blocks])
    return Subject(engine, lambda ids: table[ids])


async def of_upstream(name: str, url: str, tokenizer_dir: Path) -> Subject:
    kind, _ = UPSTREAMS[name]
    engine = await open_engine(_reached(kind, url, tokenizer_dir), "toy")
    await engine.connect()
    # SGLang's cache ends one token before the first that is scored.
    return Subject(engine, toy_logprobs(), (30 + 6 + 2, 2 * 29) if kind == "sglang" else (3 * 30 + 6, 0))


async def of_replicas(url: str, tokenizer_dir: Path) -> Subject:
    """One vLLM under two names."""
    urls = (url, url.replace("127.0.0.1", "localhost"))
    options = ReplicatedOptions(replicas=tuple(_reached("vllm", one, tokenizer_dir) for one in urls), hedge_after_s=5.0)
    engine = await open_engine(options, "toy")
    await engine.connect()
    return Subject(engine, toy_logprobs(), (3 * 30 + 6, 0))


def _reached(kind: str, url: str, tokenizer_dir: Path) -> UpstreamOptions:
    options = {"kind": kind, "upstream": url, "model": str(tokenizer_dir), "max_top_k": 5 if kind == "openai" else 256}
    return UpstreamOptions.model_validate(options)


async def of_hf(model_dir: Path, model: Any) -> Subject:
    options = HfOptions(model=str(model_dir), device="cpu", logit_tile_bytes=5 * 4 * 259)
    return Subject(await open_engine(options, "tiny"), plain_forward(model))
