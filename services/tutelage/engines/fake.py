"""A toy teacher in numpy: small, exact and deterministic. It stands in for a model wherever none is needed.

The hidden state at a position is a fixed random vector of the token there, so a score depends on the previous token
alone and every signal can be checked by hand. Token i is written "t<i>"; token 0 ends a text.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.engines.checks import check_groups, check_ids, check_length, generation_usage, score_usage
from tutelage.engines.options import FakeOptions, Fault
from tutelage_client.wire import (
    Capabilities,
    Completion,
    GenerateRequest,
    Generation,
    Prompt,
    Provenance,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)

EOS_ID = 0


class FakeTokenizer:
    """Words "t<i>" are token i; any other word is some fixed token. An empty prompt is the end token."""

    special_ids = frozenset({EOS_ID})

    def __init__(self, vocabulary_size: int) -> None:
        self._size = vocabulary_size

    def encode(self, prompt: Prompt) -> list[int]:
        if isinstance(prompt, str):
            return [self._word_id(word) for word in prompt.split()] or [EOS_ID]
        words = [part if isinstance(part, int) else str(part["content"]) for part in prompt]
        return [i for w in words for i in ([w] if isinstance(w, int) else self.encode(w))] or [EOS_ID]

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(f"t{i}" for i in token_ids)

    def _word_id(self, word: str) -> int:
        known = re.fullmatch(r"t(\d+)", word)
        return int(known[1]) if known else zlib.crc32(word.encode()) % self._size


class FakeEngine:
    """The toy teacher behind the contract of `base.Engine`.

    logprob_VV: [i, j] is the log-probability of token j after token i
    """

    calls_at_once = 1

    def __init__(self, options: FakeOptions, name: str) -> None:
        rng = np.random.default_rng(options.seed)
        v, h = options.vocabulary_size, options.hidden_size
        self._options = options
        self._embedding_VH = rng.normal(size=(v, h)).astype(np.float32)
        self._weight_VH = rng.normal(scale=2.0 / np.sqrt(h), size=(v, h)).astype(np.float32)
        self.logprob_VV = log_softmax(self._embedding_VH.astype(np.float64) @ self._weight_VH.T)
        self._entropy_V = -(np.exp(self.logprob_VV) * self.logprob_VV).sum(1)
        self._faults = list(options.faults)
        self.tokenizer = FakeTokenizer(v)
        self.capabilities = Capabilities(
            signals=frozenset(Signal), max_top_k=v, max_length=options.max_length, vocabulary_size=v, eos_ids=(EOS_ID,)
        )
        self.provenance = Provenance(
            teacher=name,
            model="fake",
            model_revision=f"seed-{options.seed}-hidden-{h}",
            tokenizer_fingerprint=_fingerprint(v),
            engine="fake",
            engine_version="1",
            dtype="float32",
        )

    async def connect(self) -> dict[str, Any]:
        """There is nothing to reach."""
        return {}

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        """Exact scores, unless a fault is due."""
        check_groups(groups, self.capabilities)
        fault = self._faults.pop(0) if self._faults else "none"
        usage = score_usage(groups)
        await asyncio.sleep(self._options.latency_s + self._options.token_latency_s * usage.forward_tokens)
        if self._options.fatal_id is not None:
            _die_of(self._options.fatal_id, groups)
        if fault == "error":
            raise RuntimeError("the fake engine was told to fail")
        blocks = [self._block(g.prompt_ids, c, signals, top_k) for g in groups for c in g.completions]
        return [_spoiled(block, fault) for block in blocks], usage

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        """Samples of the toy model itself; a text ends at token 0, at a stop string or at `max_tokens`."""
        prompts = [self.tokenizer.encode(prompt) for prompt in request.prompts]
        for i, ids in enumerate(prompts):
            check_ids(ids, self.capabilities, f"prompts.{i}")
            check_length(len(ids) + request.max_tokens, self.capabilities, f"prompts.{i}")
        rng = np.random.default_rng(self._options.seed if request.seed is None else request.seed)
        generations = [[self._write(ids[-1], request, rng) for _ in range(request.n)] for ids in prompts]
        written = sum(len(g.token_ids or ()) for row in generations for g in row)
        return generations, generation_usage(prompts, request.n, written)

    def head(self) -> dict[str, NDArray[Any]]:
        """The output weight; this model has no bias, scale or soft-cap."""
        return {"weight": self._weight_VH}

    async def close(self) -> None:
        """Nothing is held open."""

    def _block(
        self, prompt_ids: NDArray[np.int32], completion: Completion, signals: frozenset[Signal], top_k: int | None
    ) -> TokenScores:
        token_ids = completion.token_ids
        previous = np.concatenate([prompt_ids[-1:], token_ids[:-1]])
        arrays: dict[str, Any] = {"valid": np.ones(len(token_ids), dtype=bool)}
        if Signal.SAMPLED in signals:
            arrays["sampled_logprob"] = self.logprob_VV[previous, token_ids]
        if Signal.TOP_K in signals:
            arrays |= _top_k(self.logprob_VV[previous], top_k)
        if Signal.CANDIDATES in signals:
            arrays |= _candidates(self.logprob_VV[previous], completion.candidate_ids)
        if Signal.ENTROPY in signals:
            arrays["entropy"] = self._entropy_V[previous]
        if Signal.HIDDEN in signals:
            arrays["hidden"] = self._embedding_VH[previous]
        return TokenScores.unchecked(len(prompt_ids), arrays)

    def _write(self, last_id: int, request: GenerateRequest, rng: np.random.Generator) -> Generation:
        token_ids: list[int] = []
        logprobs: list[float] = []
        text = ""
        while len(token_ids) < request.max_tokens:
            logprob_V = _adjusted(self.logprob_VV[last_id], request.temperature, request.top_p)
            greedy = request.temperature == 0
            last_id = int(logprob_V.argmax() if greedy else rng.choice(len(logprob_V), p=np.exp(logprob_V)))
            token_ids.append(last_id)
            logprobs.append(float(logprob_V[last_id]))
            text = self.tokenizer.decode([i for i in token_ids if i != EOS_ID])
            stop_at = min((at for s in request.stop if (at := text.find(s)) >= 0), default=None)
            if last_id == EOS_ID or stop_at is not None:
                return Generation(text=text[:stop_at], token_ids=token_ids, logprobs=logprobs, finish_reason="stop")
        return Generation(text=text, token_ids=token_ids, logprobs=logprobs, finish_reason="length")


def _fingerprint(vocabulary_size: int) -> str:
    """That of `fakes.tokenizer.write_tokenizer`, so that a student with its directory fits."""
    pairs = sorted((f"t{i}", i) for i in range(vocabulary_size))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def _adjusted(logprob_V: NDArray[np.float64], temperature: float, top_p: float) -> NDArray[np.float64]:
    """The distribution that is drawn from; temperature 0 keeps the model's own."""
    if temperature == 0:
        return logprob_V
    adjusted = log_softmax(logprob_V / temperature)
    order = np.argsort(-adjusted, kind="stable")
    before = np.cumsum(np.exp(adjusted[order])) - np.exp(adjusted[order])
    adjusted[order[before >= top_p]] = -np.inf
    return log_softmax(adjusted)


def _top_k(logprob_RV: NDArray[np.float64], top_k: int | None) -> dict[str, Any]:
    ids = np.argsort(-logprob_RV, axis=1, kind="stable")[:, :top_k]
    logprob = np.take_along_axis(logprob_RV, ids, 1)
    return {"topk_ids": ids, "topk_logprob": logprob, "topk_rest_mass": np.maximum(1 - np.exp(logprob).sum(1), 0)}


def _candidates(logprob_RV: NDArray[np.float64], ids: NDArray[np.int32] | None) -> dict[str, Any]:
    assert ids is not None
    covered = ids >= 0
    logprob = np.take_along_axis(logprob_RV, np.where(covered, ids, 0), 1)
    return {"candidate_logprob": np.where(covered, logprob, np.nan), "candidate_valid": covered}


def _die_of(fatal_id: int, groups: Sequence[ScoreGroup]) -> None:
    if any(fatal_id in completion.token_ids for group in groups for completion in group.completions):
        os.kill(os.getpid(), signal.SIGKILL)


def _spoiled(block: TokenScores, fault: Fault) -> TokenScores:
    """The block with a fault; a bad number goes past the validation of the type, as a broken engine's would."""
    if fault == "none":
        return block
    if fault == "short":
        kept = {name: array[:-1] for name, array in block.arrays().items()}
        return TokenScores(start=block.start, **kept)
    floats = {name: array for name, array in block.arrays().items() if array.dtype == np.float32}
    if fault == "nan":
        return block.model_copy(update={name: np.full_like(array, np.nan) for name, array in floats.items()})
    if fault == "positive":
        return block.model_copy(update={n: np.ones_like(a) for n, a in floats.items() if n.endswith("logprob")})
    return block
