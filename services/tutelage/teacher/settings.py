"""Where and how a teacher runs: flags, or environment variables `TUTELAGE_TEACHER_*`. No model library is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tutelage.engines import (
    ChatOptions,
    EngineOptions,
    FakeOptions,
    HfOptions,
    HfRewardOptions,
    ReplicatedOptions,
    UpstreamOptions,
    VllmOptions,
)
from tutelage.queue import Queue, QueueLimits, open_queue
from tutelage.teacher.accounts import Budget
from tutelage.teacher.admission import Limits
from tutelage.teacher.keys import Key
from tutelage_client.client import read_key
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Prices
from tutelage_client.wire.forms import ADDRESS, SHORT_NAME

OPENAI_MAX_TOP_K = 5  # what completions with echo are documented to give
NEEDS: dict[str, tuple[str, ...]] = {
    "fake": (),
    "hf": ("model",),
    "hf_reward": ("model",),
    "vllm": ("model",),
    "sglang": ("upstream", "model"),
    "openai": ("upstream", "model"),
    "chat": ("upstream", "upstream_model"),
}
MEANING = {
    "model": "a model directory or a hub id",
    "upstream": "the address of the server",
    "upstream_model": "the name of the hosted model",
}


Address = Annotated[str, StringConstraints(pattern=ADDRESS)]


class Settings(BaseSettings):
    """One teacher process: its engine, its two doors and its limits."""

    model_config = SettingsConfigDict(
        env_prefix="TUTELAGE_TEACHER_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
        cli_prog_name="python -m tutelage.teacher",
        cli_parse_none_str="\0",  # no argument can be that, so that "null" is a name as any other
    )

    name: str = Field("teacher", pattern=SHORT_NAME, description="the name that runs use; also its queue")
    engine: Literal["hf", "hf_reward", "vllm", "sglang", "openai", "chat", "fake"] = Field(
        "hf",
        description="hf: a transformers model; hf_reward: one that values whole texts; "
        "vllm, sglang, openai: a server that scores, at --upstream; "
        "vllm without --upstream: vLLM in this process; "
        "chat: a hosted model that returns text; fake: a toy model for tests",
    )
    model: str | None = Field(
        None, description="model directory, or hub id with --revision; for a server the one with its tokenizer"
    )
    revision: str | None = Field(None, description="commit of a hub id; for a server what you say its weights are")
    reward_label: str | None = Field(None, description="output of hf_reward that is the reward, where it has several")
    upstream: Annotated[tuple[Address, ...], NoDecode] = Field(
        (), description="address of the server or hosted API; several, where they serve the same model"
    )
    hedge_after_s: float | None = Field(
        None, gt=0, description="put a request that takes longer to a second upstream too"
    )
    upstream_model: str | None = Field(None, description="name under which the upstream serves the model")
    api_key_file: Path | None = Field(None, description="file with the key that the upstream wants")
    upstream_deadline_s: float = Field(120.0, gt=0, description="for one call to the upstream, repetitions included")
    upstream_concurrency: int = Field(16, ge=1, description="calls to the upstream that are open at a time, at most")
    upstream_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens that are scored at one upstream at a time, at most; a longer sequence goes alone "
        "(default for vllm: as many as have 4 GiB of float32 logits, which is 2^30 / vocabulary; else no bound)",
    )
    max_top_k: int | None = Field(None, ge=1, le=4096, description="never ask the upstream for more (openai: 5)")
    max_length: int | None = Field(None, ge=2, description="longest sequence, where the upstream does not say")
    dtype: Literal["float32", "bfloat16", "auto"] = Field("float32", description="of the weights")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model runs")
    vllm_args: dict[str, Any] = Field(
        default_factory=dict, description="JSON of further engine arguments for vLLM in this process"
    )
    fake_options: FakeOptions = Field(FakeOptions(), description="JSON options of the fake engine")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8200, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    public_url: str | None = Field(None, pattern=ADDRESS, description="address that others reach this teacher at")
    redis_url: str | None = Field(None, description="work on the queue at redis://HOST:PORT/DB too")
    redis_password_file: Path | None = Field(None, description="file with the password of the user in --redis-url")
    lease_s: float = Field(
        30.0,
        ge=0.1,
        le=3600,
        description="seconds until a job in hand is another teacher's to take, unless renewed",
    )
    max_deliveries: int = Field(3, ge=1, le=1000, description="tries of a job of the queue before it is given up")
    coordinator: str | None = Field(None, pattern=ADDRESS, description="coordinator to register at")
    coordinator_key_file: Path | None = Field(
        None, description="file with the key that registers teachers, where the coordinator asks for one"
    )
    keys_file: Path | None = Field(None, description="TOML with a [[keys]] table for each accepted bearer key")
    accounts_file: Path | None = Field(None, description="SQLite file of what was spent; without it a restart forgets")
    run_budget_tokens: int | None = Field(None, ge=0, description="forward plus generated tokens of one run, at most")
    run_budget_usd: float | None = Field(None, ge=0, le=1e6, description="dollars of one run, at most; needs prices")
    usd_per_million_input: float = Field(0.0, ge=0, le=1e6, description="price of tokens that go through the model")
    usd_per_million_cached: float | None = Field(None, ge=0, description="of those that need not; default: as input")
    usd_per_million_output: float = Field(0.0, ge=0, le=1e6, description="price of tokens that are written")
    canary_every_s: float = Field(
        60.0, gt=0, le=86_400, description="until a known question is asked again; another answer ends readiness"
    )
    max_batch_tokens: int = Field(16_384, ge=1, description="tokens of one engine call")
    max_request_tokens: int = Field(1_048_576, ge=1, description="tokens of one request")
    max_waiting_tokens: int = Field(1_048_576, ge=1, description="tokens that may wait before HTTP answers 503")
    max_waiting_items: int = Field(4096, ge=1, description="items that may wait to be graded before HTTP answers 503")
    max_candidates: int = Field(4096, ge=1, description="candidate ids at one position")
    run_code: bool = Field(
        False, description="grade by unit_tests, which runs the code of whoever may ask for rewards, in a sandbox"
    )
    score_cache_bytes: int = Field(
        0, ge=0, le=2**40, description="of scores kept in memory, for equal questions; 0 keeps none"
    )
    score_cache_file: Path | None = Field(None, description="SQLite file of scores that outlive a restart")
    score_cache_file_bytes: int = Field(2**30, ge=2**20, le=2**44, description="of that file, at most")
    grace_s: int = Field(10, ge=0, description="seconds for open work at shutdown")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @field_validator("upstream", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """In the environment they stand in one line, with commas."""
        return tuple(given.split(",")) if isinstance(given, str) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        for flag in NEEDS[self.engine]:
            if not getattr(self, flag):
                raise ValueError(f"--engine {self.engine} needs --{flag.replace('_', '-')}, {MEANING[flag]}")
        if len(set(self.upstream)) < len(self.upstream):
            raise ValueError("--upstream names an address twice; give each replica once")
        if self.hedge_after_s is not None and len(self.upstream) < 2:
            raise ValueError("--hedge-after-s needs a second --upstream to put a request to; name one, or leave it out")
        if self.prices().cached > self.usd_per_million_input:
            raise ValueError("--usd-per-million-cached is over --usd-per-million-input; a cached token costs no more")
        return self

    def check_budgets(self, keys: Sequence[Key]) -> None:
        """Refuse budgets that could not be kept.

        Raises:
            InvalidInput: in tokens without a file to remember them in, or in dollars without prices.
        """
        budgets = [self.run_budget(), *(Budget(key.budget_tokens, key.budget_usd) for key in keys)]
        if self.accounts_file is None and any(budget != Budget() for budget in budgets):
            raise InvalidInput("a budget needs --accounts-file, or a restart would refill it", "accounts_file")
        priced = self.usd_per_million_input or self.usd_per_million_output
        if not priced and any(budget.usd is not None for budget in budgets):
            raise InvalidInput("a budget in USD needs prices; give --usd-per-million-input and -output")

    def prices(self) -> Prices:
        cached = self.usd_per_million_cached
        price = self.usd_per_million_input
        return Prices(input=price, cached=price if cached is None else cached, output=self.usd_per_million_output)

    def run_budget(self) -> Budget:
        return Budget(self.run_budget_tokens, self.run_budget_usd)

    def engine_options(self) -> EngineOptions:
        if self.engine == "fake":
            return self.fake_options
        if self.engine == "hf":
            return HfOptions(model=str(self.model), revision=self.revision, dtype=self.dtype, device=self.device)
        if self.engine == "hf_reward":
            given = {"model": self.model, "revision": self.revision, "label": self.reward_label}
            return HfRewardOptions.model_validate(given | {"dtype": self.dtype, "device": self.device})
        if self.engine == "vllm" and not self.upstream:
            return self._vllm_options()
        if len(self.upstream) == 1:
            return self._reached_options(self.upstream[0])
        replicas = tuple(self._reached_options(url, fail_fast=True) for url in self.upstream)
        return ReplicatedOptions(replicas=replicas, hedge_after_s=self.hedge_after_s)

    def _reached_options(self, url: str, *, fail_fast: bool = False) -> UpstreamOptions | ChatOptions:
        reached: dict[str, Any] = {
            "upstream": url,
            "fail_fast": fail_fast,
            "api_key_file": self.api_key_file,
            "upstream_model": self.upstream_model,
            "deadline_s": self.upstream_deadline_s,
            "max_concurrency": self.upstream_concurrency,
        }
        if self.max_length is not None:
            reached["max_length"] = self.max_length
        if self.engine == "chat":
            return ChatOptions.model_validate(reached)
        reached |= {"kind": self.engine, "model": self.model, "revision": self.revision}
        reached |= {"recheck_s": self.canary_every_s, "tokens_at_once": self.upstream_tokens}
        top_k = OPENAI_MAX_TOP_K if self.max_top_k is None and self.engine == "openai" else self.max_top_k
        return UpstreamOptions.model_validate(reached | ({} if top_k is None else {"max_top_k": top_k}))

    def _vllm_options(self) -> VllmOptions:
        given: dict[str, Any] = {"model": self.model, "revision": self.revision, "dtype": self.dtype}
        given |= {"device": self.device, "tokens_at_once": self.upstream_tokens}
        given |= {"max_length": self.max_length, "vllm_args": self.vllm_args, "recheck_s": self.canary_every_s}
        return VllmOptions.model_validate(given | ({} if self.max_top_k is None else {"max_top_k": self.max_top_k}))

    def open_queue(self) -> Queue | None:
        """The queue to work on, where there is one.

        Raises:
            InvalidInput: its URL or the file with its password cannot be used.
        """
        if self.redis_url is None:
            return None
        limits = QueueLimits(lease_s=self.lease_s, max_deliveries=self.max_deliveries)
        return open_queue(self.redis_url, limits, self.redis_password_file)

    def coordinator_key(self) -> str | None:
        """The key to register with, where there is one. Raises: InvalidInput: the file does not hold one key."""
        return read_key(self.coordinator_key_file) if self.coordinator_key_file else None

    def limits(self) -> Limits:
        return Limits(
            self.max_request_tokens, self.max_candidates, self.max_waiting_tokens, self.max_waiting_items, self.run_code
        )
