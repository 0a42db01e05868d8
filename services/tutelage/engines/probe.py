"""An engine's test of itself: before it takes work its answers must agree with each other on a known sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tutelage.engines.agreement import disagreement, gap_nats
from tutelage.engines.base import Engine, ServedEngine
from tutelage.engines.known import ask_known, known_answer, known_group
from tutelage.engines.mass import mass_of_all, mass_of_top_k
from tutelage_client.errors import BadScores
from tutelage_client.wire import (
    Capabilities,
    Completion,
    GenerateRequest,
    Generation,
    Provenance,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)

_WRITTEN = 4


class Answers(Protocol):
    """Who puts a question to the engine in turn, and checks the answer."""

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]: ...

    async def generate(self, request: GenerateRequest, tokens: int) -> tuple[list[list[Generation]], Usage]: ...


class Directly:
    """Puts questions to an engine without a teacher in between."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        return await self._engine.score(groups, signals, top_k)

    async def generate(
        self,
        request: GenerateRequest,
        tokens: int,  # noqa: ARG002 - nobody waits here
    ) -> tuple[list[list[Generation]], Usage]:
        return await self._engine.generate(request)


async def probe(answers: Answers, engine: Engine) -> dict[str, Any]:
    """What was found. `worst_gap`, `worst_written_gap` and `drift` are in nats, `worst_mass` is the distance from 1.

    worst_gap: between two signals on the same token; drift: between two calls; known_answer: log-probs to compare later
    worst_mass: of the top k and the rest; worst_mass_of_all: of all tokens, where each can be asked about

    Raises:
        BadScores: signals contradict each other, an answer is no score, or the engine is not what it says.
        TutelageError: there was no answer.
    """
    facts = await engine.connect()
    known = engine.capabilities
    _check_identity(known, engine.provenance)
    found: dict[str, Any] = {
        "max_top_k": known.max_top_k,
        "max_length": known.max_length,
        "eos_ids": list(known.eos_ids),
        "tokenizer_fingerprint": engine.provenance.tokenizer_fingerprint,
    }
    if isinstance(engine, ServedEngine):
        found["tokenizer"] = await engine.compare_tokenizers()
    first = known.signals & {Signal.SAMPLED, Signal.TOP_K}
    if first:
        found |= await _Probe(answers, known, engine.provenance.dtype).run(first)
    return found | facts


def _check_identity(known: Capabilities, who: Provenance) -> None:
    if who.temperature != 1 and not known.applies_temperature:
        raise _failed(f"log-probs are said to be at temperature {who.temperature}, which the engine cannot apply")
    if known.signals and not who.tokenizer_fingerprint:
        raise _failed("there are scores but no tokenizer that says what of")
    wrong = [i for i in known.eos_ids if known.vocabulary_size is not None and not 0 <= i < known.vocabulary_size]
    if wrong:
        raise _failed(f"the end token {wrong[0]} is outside the vocabulary of {known.vocabulary_size}")


@dataclass(frozen=True, slots=True)
class _Probe:
    answers: Answers
    known: Capabilities
    dtype: str

    async def run(self, signals: frozenset[Signal]) -> dict[str, Any]:
        group = known_group(self.known)
        prompt_ids, scored_ids = group.prompt_ids, group.completions[0].token_ids
        found: dict[str, Any] = {}
        block = await ask_known(self.answers, self.known)
        again = await ask_known(self.answers, self.known)
        assert block is not None and again is not None  # as there are signals
        complaint = "two calls with the same tokens disagree"
        found["drift"] = max(
            self._gap(getattr(block, name), getattr(again, name), complaint)
            for name in ("sampled_logprob", "topk_logprob")
        )
        found["known_answer"] = known_answer(block)
        found |= await self._mass_of_top_k(prompt_ids, scored_ids, block)
        found["worst_gap"] = self._sampled_against_top_k(scored_ids, block)
        if Signal.CANDIDATES in self.known.signals:
            gap = await self._candidates_against(prompt_ids, scored_ids, block)
            found["worst_gap"] = max(found["worst_gap"], gap)
        if (of_all := await mass_of_all(self.answers, self.known)) is not None:
            found["worst_mass_of_all"] = of_all
        if self.known.generates and Signal.SAMPLED in signals:
            found["worst_written_gap"] = await self._written_against_scored(prompt_ids)
        return found

    async def _mass_of_top_k(
        self, prompt_ids: NDArray[np.int32], scored_ids: NDArray[np.int32], block: TokenScores
    ) -> dict[str, float]:
        """Of the block, and of the largest top k that is declared."""
        if block.topk_logprob is None or self.known.vocabulary_size is None:
            return {}
        worst = mass_of_top_k(block, self.known.vocabulary_size)
        if block.topk_logprob.shape[1] != self.known.max_top_k:
            completion = Completion(token_ids=scored_ids)
            largest = await self._ask(prompt_ids, completion, frozenset({Signal.TOP_K}), self.known.max_top_k)
            worst = max(worst, mass_of_top_k(largest, self.known.vocabulary_size))
        return {"worst_mass": worst}

    async def _candidates_against(
        self, prompt_ids: NDArray[np.int32], scored_ids: NDArray[np.int32], block: TokenScores
    ) -> float:
        """Ask about the same ids as candidates; all of them must be covered, as they were in the answer before."""
        ids, expected = _candidates(scored_ids, block)
        completion = Completion(token_ids=scored_ids, candidate_ids=ids)
        again = await self._ask(prompt_ids, completion, frozenset({Signal.CANDIDATES}), None)
        assert again.candidate_logprob is not None
        assert again.candidate_valid is not None
        if not again.candidate_valid[ids >= 0].all():
            raise _failed("candidates that are in the top k have no score")
        complaint = "candidates disagree with sampled or top-k on the same tokens"
        return self._gap(again.candidate_logprob[ids >= 0], expected[ids >= 0], complaint)

    async def _written_against_scored(self, prompt_ids: NDArray[np.int32]) -> float:
        """Text of the engine, scored: log-probs that came with it must be those of the scores."""
        tokens = min(_WRITTEN, self.known.max_length - 1)
        request = GenerateRequest(prompts=[prompt_ids.tolist()], max_tokens=tokens, seed=0)
        ((one,),), _ = await self.answers.generate(request, tokens)
        if not one.token_ids or one.logprobs is None:
            return 0.0
        completion = Completion(token_ids=np.array(one.token_ids, dtype=np.int32))
        block = await self._ask(prompt_ids, completion, frozenset({Signal.SAMPLED}), None)
        return self._gap(
            block.sampled_logprob, np.array(one.logprobs), "text comes with other log-probs than its scores"
        )

    def _sampled_against_top_k(self, scored_ids: NDArray[np.int32], block: TokenScores) -> float:
        """A scored token is in the top k with the same log-prob, or below all of it."""
        if block.topk_ids is None or block.topk_logprob is None or block.sampled_logprob is None:
            return 0.0
        same = block.topk_ids == scored_ids[:, None]
        complaint = "top-k disagrees with sampled on the same tokens"
        sampled_RK = np.broadcast_to(block.sampled_logprob[:, None], same.shape)
        gap = self._gap(block.topk_logprob[same], sampled_RK[same], complaint)
        outside = ~same.any(axis=1)
        most = np.minimum(block.sampled_logprob, block.topk_logprob[:, -1])
        self._gap(block.sampled_logprob[outside], most[outside], f"{complaint}: one above the k-th is not in the top k")
        return gap

    def _gap(self, one: NDArray[Any] | None, other: NDArray[Any] | None, complaint: str) -> float:
        """In nats; 0 where one is not there. Raises: BadScores: it is too wide."""
        if one is None or other is None:
            return 0.0
        found = disagreement(one, other, self.dtype)
        if found is not None:
            raise _failed(f"{complaint}: {found}")
        return gap_nats(one, other)

    async def _ask(
        self, prompt_ids: NDArray[np.int32], completion: Completion, signals: frozenset[Signal], top_k: int | None
    ) -> TokenScores:
        groups = [ScoreGroup(prompt_ids=prompt_ids, completions=(completion,))]
        blocks, _ = await self.answers.score(groups, signals, top_k)
        return blocks[0]


def _candidates(scored_ids: NDArray[np.int32], block: TokenScores) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Ids to ask about again, and the log-probs that they had in the first answer; both [rows, c].

    -1 stands in the top k for the scored token, which is asked about already.
    """
    ids = [scored_ids[:, None]] if block.sampled_logprob is not None else []
    logprob = [block.sampled_logprob[:, None]] if block.sampled_logprob is not None else []
    if block.topk_ids is not None and block.topk_logprob is not None:
        asked = block.topk_ids == scored_ids[:, None] if ids else np.zeros(block.topk_ids.shape, dtype=bool)
        ids.append(np.where(asked, np.int32(-1), block.topk_ids))
        logprob.append(block.topk_logprob)
    return np.concatenate(ids, axis=1), np.concatenate(logprob, axis=1)


def _failed(complaint: str) -> BadScores:
    return BadScores(f"the start-up probe failed: {complaint}")
