"""What an engine is made from, as data. No model library is imported here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fault = Literal["none", "nan", "positive", "short", "error"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FakeOptions(_Options):
    """The toy teacher of tests and demos.

    latency_s: waited in every score call
    faults: what goes wrong in successive score calls, the first entry in the first call; after the last nothing does
    """

    kind: Literal["fake"] = "fake"
    vocabulary_size: int = Field(default=32, ge=2)
    hidden_size: int = Field(default=8, ge=1)
    max_length: int = Field(default=4096, ge=2)
    seed: int = Field(default=0, ge=0)
    latency_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    faults: tuple[Fault, ...] = ()


class HfOptions(_Options):
    """A causal language model of the transformers library.

    model: a directory, or a hub id; revision: pins a hub id
    logit_chunk_rows: rows of which the full vocabulary is held at once while scoring
    """

    kind: Literal["hf"] = "hf"
    model: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    logit_chunk_rows: int = Field(default=1024, ge=1)


EngineOptions = Annotated[FakeOptions | HfOptions, Field(discriminator="kind")]
