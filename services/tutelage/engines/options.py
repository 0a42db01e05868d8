"""What an engine is made from, as data. No model library is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tutelage_client.wire.forms import ADDRESS

Fault = Literal["none", "nan", "positive", "short", "error"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FakeOptions(_Options):
    """The toy teacher of tests and demos.

    latency_s: waited in every score call; token_latency_s: waited in it for each token that goes through the model
    faults: what goes wrong in successive score calls, the first entry in the first call; after the last nothing does
    fatal_id: a token that kills the process when it is to be scored in a completion
    """

    kind: Literal["fake"] = "fake"
    vocabulary_size: int = Field(default=32, ge=2)
    hidden_size: int = Field(default=8, ge=1)
    max_length: int = Field(default=4096, ge=2)
    seed: int = Field(default=0, ge=0)
    latency_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    token_latency_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    faults: tuple[Fault, ...] = ()
    fatal_id: int | None = None


class HfOptions(_Options):
    """A causal language model of the transformers library.

    model: a directory, or a hub id; revision: pins a hub id
    logit_tile_bytes: float32 logits that are held at once while scoring, whatever the vocabulary and the tokens
    """

    kind: Literal["hf"] = "hf"
    model: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    logit_tile_bytes: int = Field(default=64 * 2**20, ge=1)


class HfRewardOptions(_Options):
    """A sequence-classification model of the transformers library. model: a directory, or a hub id

    revision: pins a hub id; label: which output is the reward, where the model has several
    """

    kind: Literal["hf_reward"] = "hf_reward"
    model: str = Field(min_length=1)
    revision: str | None = None
    label: str | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class _Reached(_Options):
    """What is reached over HTTP.

    deadline_s: for one call with all its repetitions; max_concurrency: calls that are open at a time, at most
    fail_fast: others can stand in for it, so it is given up as soon as it fails again and again
    """

    upstream: str = Field(pattern=ADDRESS)
    api_key_file: Path | None = None
    deadline_s: float = Field(default=120.0, gt=0, allow_inf_nan=False)
    max_concurrency: int = Field(default=16, ge=1)
    fail_fast: bool = False


class UpstreamOptions(_Reached):
    """A server that scores token ids.

    model: directory with the tokenizer of the model that is served; revision: what the operator says it is
    upstream_model: the name it is served under, needed where several are; max_top_k: never ask for more
    tokens_at_once: tokens that are scored at a time, at most; a longer sequence goes alone
        None: of a vLLM as many as have 4 GiB of float32 logits, of others without a bound
    max_length: tokens of a sequence, where the server does not say
    recheck_s: how old the last look at a known answer may be when work comes
    """

    kind: Literal["vllm", "sglang", "openai"]
    model: str = Field(min_length=1)
    revision: str | None = None
    upstream_model: str | None = None
    max_top_k: int = Field(default=256, ge=1, le=4096)
    max_length: int | None = Field(default=None, ge=2)
    tokens_at_once: int | None = Field(default=None, ge=1)
    recheck_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)


class VllmOptions(_Options):
    """A causal language model that vLLM runs in this process.

    model: a directory, or a hub id; revision: pins a hub id
    max_top_k: top-k entries and candidates of one call; max_length: tokens of a sequence, the model's own if None
    tokens_at_once: as of `UpstreamOptions`
    device: cuda is refused where there is none; where the model then runs, vLLM's build decides
    vllm_args: further arguments of vLLM's engine, by name
    recheck_s: how old the last look at a known answer may be when work comes
    """

    kind: Literal["vllm-in-process"] = "vllm-in-process"
    model: str = Field(min_length=1)
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "auto"] = "float32"
    max_top_k: int = Field(default=256, ge=1, le=4096)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_length: int | None = Field(default=None, ge=2)
    tokens_at_once: int | None = Field(default=None, ge=1)
    vllm_args: dict[str, Any] = Field(default_factory=dict)
    recheck_s: float = Field(default=60.0, ge=0, allow_inf_nan=False)


class ChatOptions(_Reached):
    """A hosted model that returns text. upstream_model: the name it is hosted under"""

    kind: Literal["chat"] = "chat"
    upstream_model: str = Field(min_length=1)
    max_length: int = Field(default=8192, ge=2)


class ReplicatedOptions(_Options):
    """Several upstreams that serve one model.

    hedge_after_s: a request that takes longer is put to a second one too; None: never
    """

    kind: Literal["replicated"] = "replicated"
    replicas: tuple[UpstreamOptions | ChatOptions, ...] = Field(min_length=2)
    hedge_after_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)


EngineOptions = Annotated[
    FakeOptions | HfOptions | HfRewardOptions | UpstreamOptions | VllmOptions | ChatOptions | ReplicatedOptions,
    Field(discriminator="kind"),
]
