"""A teacher described: what it can be asked, who it is, what an answer cost."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from tutelage_client.wire.message import Message
from tutelage_client.wire.tensors import EntryDtype


class Signal(StrEnum):
    """What a teacher can be asked to return for a token; the arrays of TokenScores say what each is."""

    SAMPLED = "sampled"
    TOP_K = "top_k"
    CANDIDATES = "candidates"
    ENTROPY = "entropy"
    HIDDEN = "hidden"


class Capabilities(Message):
    """What a teacher can do; what it lacks is refused with `capability_missing`, never approximated."""

    signals: frozenset[Signal] = Field(description="what it returns for a token")
    max_top_k: int = Field(description="largest top_k of one request")
    max_length: int = Field(description="tokens of the longest sequence, prompt included")
    vocabulary_size: int | None = Field(description="entries of its output head; null where token ids mean nothing")
    applies_temperature: bool = Field(default=False, description="log-probabilities at another temperature than 1")
    exact: bool = Field(default=True, description="its log-probabilities are those of the model, not an estimate")
    covers_candidates: bool = Field(
        default=True, description="each candidate gets a score; else one outside the top k may come back not valid"
    )
    generates: bool = Field(default=True, description="it writes text")
    greedy: bool = Field(
        default=True, description="it writes at temperature 0; where not, it judges at its model's own temperature"
    )
    writes_by_seed: bool = Field(
        default=True,
        description="the same request and seed get the same text; a hosted model does not promise it",
    )
    rewards: frozenset[Literal["reward_model", "rubric", "pairwise"]] = Field(
        default=frozenset(), description="kinds of rewards that its model gives; graders without a model always go"
    )
    eos_ids: tuple[int, ...] = Field(default=(), description="tokens that end a text")
    hidden_dtype: EntryDtype = Field(
        default="float32", description="what its hidden states are computed in: as this entry_dtype they lose nothing"
    )


class Provenance(Message):
    """Who spoke. A silent change of any field in mid-run is refused by the trainer."""

    teacher: str = Field(description="the name under which it is registered")
    model: str = Field(description="hub id, or the name of the model's directory")
    model_revision: str = Field(description="commit of a hub id, or a hash of the weights")
    tokenizer_fingerprint: str = Field(description="sha256 over all tokens and ids")
    engine: str = Field(description="what computes")
    engine_version: str = Field(description="of the library behind the engine")
    dtype: str = Field(description="of the weights")
    temperature: float = Field(default=1.0, description="at which its log-probabilities are")


class Usage(Message):
    """What a request cost."""

    scored_tokens: int = Field(default=0, description="tokens that got a score")
    forward_tokens: int = Field(default=0, description="tokens that went through the model")
    cached_tokens: int = Field(default=0, description="tokens that did not have to")
    generated_tokens: int = Field(default=0, description="tokens that were written")

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            scored_tokens=self.scored_tokens + other.scored_tokens,
            forward_tokens=self.forward_tokens + other.forward_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            generated_tokens=self.generated_tokens + other.generated_tokens,
        )


class Prices(Message):
    """What a teacher's work costs, in USD a million tokens. A cached token costs no more than one that is not."""

    input: float = Field(default=0.0, description="tokens that go through the model")
    cached: float = Field(default=0.0, description="tokens that do not have to")
    output: float = Field(default=0.0, description="tokens that are written")

    def usd(self, usage: Usage) -> float:
        """Of this work, in dollars."""
        return (
            usage.forward_tokens * self.input + usage.cached_tokens * self.cached + usage.generated_tokens * self.output
        ) / 1e6


class ScoreCacheView(Message):
    """What a teacher's score cache did since its start. Completions are counted, each by where its answer came from."""

    hits: int = Field(description="found")
    joined: int = Field(description="not found, but another request was asking for the same")
    misses: int = Field(description="asked of the model")
    memory_bytes: int = Field(description="kept in memory")
    file_bytes: int = Field(description="used of the file")
    corrupt: int = Field(description="entries or files that were dropped as damaged")


Breaker = Literal["closed", "open", "half_open"]
_BREAKER = "of calls to an upstream; open: it failed again and again and is left alone; half_open: one call tries"


class ReplicaView(Message):
    """One of several upstreams behind a teacher. Counts are since the teacher's start."""

    name: str = Field(description="its address")
    up: bool = Field(description="it takes work; else it is quarantined and probed again")
    reason: str | None = Field(default=None, description="why it takes none")
    outstanding_tokens: int = Field(description="of the requests that it has in hand")
    asked: int = Field(description="requests that it was given")
    failed: int = Field(description="of these, without a usable answer")
    quarantined: int = Field(description="times that it stopped taking work")
    hedged: int = Field(description="requests that it was given because another one took long")
    hedge_won: int = Field(description="of these, answered first")
    breaker: Breaker | None = Field(default=None, description=f"{_BREAKER}; null: none is between")
    p50_s: float | None = Field(
        default=None, description="half of its last 1,000 answers took no longer; null: none yet"
    )
    p95_s: float | None = Field(default=None, description="95 of a hundred of the same")
    p99_s: float | None = Field(default=None, description="99 of a hundred of the same")


class Overload(Message):
    """An upstream that takes no work, as it is over its limits: it answered with 429 or 503 and to nothing since."""

    lasting_s: float = Field(description="seconds since the first of these refusals")
    retry_after_s: float = Field(description="what its last Retry-After asked to wait; 0 where it did not say")
    reason: str = Field(description="what it said")


class CanaryResult(Message):
    """One look at whether a known sequence still gets its first answer."""

    at: datetime = Field(description="when")
    ok: bool = Field(description="it did, within rounding")
    reason: str | None = Field(default=None, description="what was wrong")


class RunSpending(Message):
    """What one run cost a teacher since the teacher's start."""

    run_id: str = Field(description="as the run said it")
    tokens: int = Field(description="tokens that went through the model or were written for it")
    usd: float = Field(description="what they cost, by the teacher's prices")


class Activity(Message):
    """What a teacher did since its start. Seconds are from taking a request up, at either door, to its answer."""

    answered: int = Field(description="requests for scores, text or rewards")
    p50_s: float | None = Field(default=None, description="half of the last 1,000 took no longer; null: none yet")
    p95_s: float | None = Field(default=None, description="95 of a hundred of the same")
    p99_s: float | None = Field(default=None, description="99 of a hundred of the same")
    spent_tokens: int = Field(description="tokens that went through the model or were written")
    spent_usd: float = Field(description="what they cost, by the teacher's prices")
    runs: tuple[RunSpending, ...] = Field(default=(), description="of the last 100 runs that asked, the newest last")
    canaries: tuple[CanaryResult, ...] = Field(default=(), description="the last 20, the newest last")


class TeacherInfo(Message):
    """A teacher as it describes itself."""

    name: str = Field(description="the name that runs use")
    capabilities: Capabilities = Field(description="what it can do")
    provenance: Provenance = Field(description="who it is")
    probe: dict[str, Any] = Field(default={}, description="what its test of itself found at the start")
    prices: Prices = Field(default=Prices(), description="what its work costs; nothing where it was given no prices")
    replicas: tuple[ReplicaView, ...] = Field(default=(), description="where several upstreams serve it")
    score_cache: ScoreCacheView | None = Field(default=None, description="its score cache, where it has one")
    overload: Overload | None = Field(default=None, description="its upstream, where that takes no work for its limits")
    breaker: Breaker | None = Field(default=None, description=f"{_BREAKER}; null: it has none, or several replicas")
    activity: Activity | None = Field(default=None, description="since its start; null: it does not tell")
