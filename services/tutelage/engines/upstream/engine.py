"""The engine of every upstream that scores token ids: checks, fan-out, and one watch over who answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tutelage.engines.agreement import disagreement
from tutelage.engines.checks import check_groups, check_ids, check_length, generation_usage
from tutelage.engines.options import UpstreamOptions, VllmOptions
from tutelage.engines.tokenizer import ModelTokenizer, encode_prompt
from tutelage.engines.upstream.asked import Answer, Asked, asked_of
from tutelage.engines.upstream.calls import Calls
from tutelage.engines.upstream.canary import Canary
from tutelage.engines.upstream.dialect import Dialect, Learned
from tutelage.engines.upstream.failures import UpstreamFailed, UpstreamRefused
from tutelage.engines.upstream.local import LocalModel
from tutelage.engines.upstream.spelling import compare_tokenizers
from tutelage.engines.upstream.tab import Tab, all_paid
from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire import (
    Breaker,
    Capabilities,
    GenerateRequest,
    Generation,
    Overload,
    Provenance,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)
from tutelage_client.wire.sentences import reason

Scored = tuple[TokenScores, Usage]
SIGNALS = frozenset({Signal.SAMPLED, Signal.TOP_K, Signal.CANDIDATES})
MAX_CELLS = 1 << 22  # top-k entries of one sequence: about 300 MB of JSON
_LONGEST_TRIED = 1 << 15


class UpstreamEngine:
    """A server behind the contract of `base.Engine`. It can do nothing before `connect` has reached it.

    calls: to the server, where it is one and may refuse or fail
    """

    def __init__(
        self,
        options: UpstreamOptions | VllmOptions,
        name: str,
        local: LocalModel,
        dialect: Dialect,
        calls_at_once: int,
        calls: Calls | None = None,
    ) -> None:
        self.calls_at_once = calls_at_once
        self.calls = calls
        self._options = options
        self._local = local
        self._dialect = dialect
        self._keeps_prompts = False
        self._canary = Canary(self._known_scores, self._differs, options.recheck_s)
        self.tokenizer = ModelTokenizer(local.tokenizer)
        self.capabilities = self._able(None)
        self.provenance = Provenance(
            teacher=name,
            model=local.name,
            model_revision=options.revision or "unknown",
            tokenizer_fingerprint=local.fingerprint,
            engine=options.kind,
            engine_version="unknown",
            dtype="unknown",
        )

    @property
    def overload(self) -> Overload | None:
        return None if self.calls is None else self.calls.refusals.overload

    @property
    def breaker(self) -> Breaker | None:
        return None if self.calls is None else self.calls.breaker.state

    async def connect(self) -> dict[str, Any]:
        """See `base.Engine.connect`; here it also tries the length and another temperature."""
        learned = await self._dialect.learn()
        self._keeps_prompts = learned.keeps_prompts
        self.capabilities = self._able(learned)
        revision = learned.revision or self._options.revision or learned.model
        changes = {"model_revision": revision, "engine_version": learned.version, "dtype": learned.dtype}
        self.provenance = self.provenance.model_copy(update=changes)
        await self._canary.remember()
        return {
            "upstream_model": learned.model,
            "length": await self._try_length(),
            "temperature": await self._try_temperature(),
        } | learned.facts

    async def compare_tokenizers(self) -> str:
        """See `base.ServedEngine`."""
        return await compare_tokenizers(self._local, self._dialect, self.capabilities.max_length)

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        """Exact where a score is valid; a sequence is one call, or a few where its candidates are many.

        Raises:
            BadAnswer, UpstreamFailed: a sequence has no scores; the usage counts what all calls are billed at.
        """
        check_groups(groups, self.capabilities)
        for i, group in enumerate(groups):
            _check_cells(group, top_k, i)
        await self._canary.look()
        calls = [call for group in groups for call in self._calls_of(list(asked_of(group, signals, top_k)))]
        scored, billed = await all_paid(calls)
        usage = _taken(billed, sum((usage for _, usage in scored), Usage()))
        rows = sum(block.rows for block, _ in scored)
        return [block for block, _ in scored], usage + Usage(scored_tokens=rows)

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        """Text of the server. Log-probs come with it at temperature 1 and top_p 1 alone, where they are the model's.

        Raises:
            UpstreamFailed: a prompt has no text; the usage counts what all calls are billed at.
        """
        prompts = [encode_prompt(self._local.tokenizer, prompt) for prompt in request.prompts]
        for i, ids in enumerate(prompts):
            check_ids(ids, self.capabilities, f"prompts.{i}")
            check_length(len(ids) + request.max_tokens, self.capabilities, f"prompts.{i} with max_tokens")
        # A server counts a seed up over the n of a prompt; prompts must not share draws.
        seeds = [None if request.seed is None else (request.seed + i * request.n) % 2**63 for i in range(len(prompts))]
        calls = [partial(self._dialect.write, ids, request, seed) for ids, seed in zip(prompts, seeds, strict=True)]
        generations, billed = await all_paid(calls)
        written = sum(len(one.token_ids or ()) for row in generations for one in row)
        return generations, _taken(billed, generation_usage(prompts, request.n, written))

    def head(self) -> dict[str, NDArray[Any]]:
        """Refused: no server gives hidden states."""
        raise InvalidInput(f"{self.provenance.engine} gives no hidden states, so no head; use top_k or candidates")

    async def close(self) -> None:
        await self._dialect.close()

    def _calls_of(self, questions: list[Asked]) -> list[Callable[[Tab], Coroutine[Any, Any, Scored]]]:
        """One for each completion of a prompt; the first goes ahead where the server keeps the prompt after it."""
        if not self._keeps_prompts:
            return [partial(self._scored, asked) for asked in questions]
        kept = asyncio.Event()
        ahead = partial(self._scored_ahead, questions[0], kept)
        return [ahead, *(partial(self._scored_behind, asked, kept) for asked in questions[1:])]

    async def _scored(self, asked: Asked, tab: Tab) -> Scored:
        answer = await self._dialect.score(asked, tab)
        return _block(asked, answer), Usage(forward_tokens=answer.forward_tokens, cached_tokens=answer.cached_tokens)

    async def _scored_ahead(self, asked: Asked, kept: asyncio.Event, tab: Tab) -> Scored:
        scored = await self._scored(asked, tab)
        kept.set()
        return scored

    async def _scored_behind(self, asked: Asked, kept: asyncio.Event, tab: Tab) -> Scored:
        await kept.wait()
        return await self._scored(asked, tab)

    def _able(self, learned: Learned | None) -> Capabilities:
        """Nothing yet, where the server has not been reached."""
        return Capabilities(
            signals=SIGNALS if learned else frozenset(),
            max_top_k=learned.max_top_k if learned else 0,
            max_length=learned.max_length if learned else 0,
            vocabulary_size=self._local.vocabulary_size,
            covers_candidates=learned is not None and learned.covers_candidates,
            generates=learned is not None,
            eos_ids=self._local.eos_ids,
        )

    def _known(self) -> Asked:
        """A short sequence that any model scores."""
        ids = [i % self._local.vocabulary_size for i in range(1, min(8, self.capabilities.max_length) + 1)]
        return Asked(ids, 1, frozenset({Signal.SAMPLED, Signal.TOP_K}), min(4, self.capabilities.max_top_k))

    async def _known_scores(self, temperature: float = 1.0) -> NDArray[np.float64]:
        """Log-probs of the known tokens, and of the best ones beside them: given ones may all be improbable."""
        known = replace(self._known(), temperature=temperature)
        block, _ = await self._scored(known, Tab())
        arrays = block.arrays()
        return np.append(arrays["sampled_logprob"], arrays["topk_logprob"]).astype(np.float64)

    def _differs(self, before: NDArray[np.float64], now: NDArray[np.float64]) -> str | None:
        return disagreement(before, now, self.provenance.dtype)

    async def _try_length(self) -> str:
        """Score a sequence of the declared length, or of 32,768 tokens if that is less; beyond, the word is taken.

        Raises:
            UpstreamFailed: the server does not score so many tokens.
        """
        declared = self.capabilities.max_length
        tried = min(declared, _LONGEST_TRIED)
        ids = [i % self._local.vocabulary_size for i in (1, *[2] * (tried - 1))]
        asked = Asked(ids, 1, frozenset({Signal.SAMPLED}))
        try:
            await self._scored(asked, Tab())
        except (UpstreamRefused, BadScores) as error:
            raise UpstreamFailed(
                f"the upstream does not score {tried} tokens, though sequences of {declared} are declared; give a "
                f"smaller --max-length ({error})"
            ) from error
        return f"{tried} tokens of {declared} were scored"

    async def _try_temperature(self) -> str:
        applied = self._differs(self._canary.known, await self._known_scores(temperature=0.5)) is not None
        return f"{'applied' if applied else 'ignored'} by the upstream on given tokens; log-probs are asked for at 1"


def _block(asked: Asked, answer: Answer) -> TokenScores:
    try:
        return answer.block(asked)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        flaw = cause.flaw if isinstance(cause, BadScores) else "malformed"
        raise BadScores(f"the upstream's answer is no score block: {reason(first)}", flaw) from error


def _taken(billed: Usage, counted: Usage) -> Usage:
    """What the calls took: as the server bills it, where it does."""
    return counted if billed == Usage() else billed


def _check_cells(group: ScoreGroup, top_k: int | None, i: int) -> None:
    cells = group.longest * (top_k or 1)
    if cells > MAX_CELLS:
        message = f"sequences.{i} has {group.longest} tokens times top_k {top_k}, over {MAX_CELLS}; ask for fewer"
        raise InvalidInput(message, f"sequences.{i}")
