"""A teacher described: what it can be asked, who it is, what an answer cost."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tutelage_client.wire.message import Message


class Signal(StrEnum):
    """What a teacher can be asked to return for a token."""

    SAMPLED = "sampled"
    TOP_K = "top_k"
    CANDIDATES = "candidates"
    ENTROPY = "entropy"
    HIDDEN = "hidden"


class Capabilities(Message):
    """What a teacher can do; what it lacks is refused with `capability_missing`, never approximated."""

    signals: frozenset[Signal]
    max_top_k: int
    max_length: int
    vocabulary_size: int
    applies_temperature: bool = False
    exact: bool = True
    generates: bool = True
    eos_ids: tuple[int, ...] = ()


class Provenance(Message):
    """Who spoke. A silent change of any field in mid-run is refused by the trainer."""

    teacher: str
    model: str
    model_revision: str
    tokenizer_fingerprint: str
    engine: str
    engine_version: str
    dtype: str
    temperature: float = 1.0


class Usage(Message):
    """What a request cost. forward_tokens went through the model, cached_tokens did not have to."""

    scored_tokens: int = 0
    forward_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.model_fields})


class TeacherInfo(Message):
    name: str
    capabilities: Capabilities
    provenance: Provenance
    probe: dict[str, Any] = {}
