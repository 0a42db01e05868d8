"""Where and how a sampler runs: flags, or environment variables `TUTELAGE_SAMPLER_*`. No model library is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tutelage.queue import Queue, QueueLimits, open_queue
from tutelage_client.wire.forms import ADDRESS, SHORT_NAME


class Settings(BaseSettings):
    """One sampler process: its queue, and what writes."""

    model_config = SettingsConfigDict(
        env_prefix="TUTELAGE_SAMPLER_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_prog_name="python -m tutelage.sampler",
        cli_parse_none_str="\0",  # no argument can be that, so that "null" is a name as any other
    )

    name: str = Field(
        "sampler",
        pattern=SHORT_NAME,
        description="what runs name as rollout.sampler; samplers of one name share the work",
    )
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="the queue")
    redis_password_file: Path | None = Field(None, description="file with the password of the user in --redis-url")
    engine: Literal["hf", "vllm"] = Field(
        "hf", description="hf: a transformers model in this process; vllm: a vLLM server of its own, at --upstream"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model of hf runs")
    upstream: str | None = Field(None, pattern=ADDRESS, description="address of the vLLM server")
    api_key_file: Path | None = Field(None, description="file with the key that the vLLM server wants")
    upstream_deadline_s: float = Field(600.0, gt=0, description="for one text, or one set of weights")
    most_off: float = Field(
        0.05,
        gt=0,
        le=10,
        description="nats by which the log-prob of a known token may be off after weights were loaded; more is refused",
    )
    max_texts: int = Field(64, ge=1, le=4096, description="that are written at a time")
    snapshot_patience_s: float = Field(
        5.0,
        ge=0,
        le=600,
        description="until a snapshot that cannot be seen counts as gone; for a network's file system",
    )
    lease_s: float = Field(
        30.0, ge=0.1, le=3600, description="seconds until a text in hand is another sampler's to write, unless renewed"
    )
    max_deliveries: int = Field(3, ge=1, le=1000, description="tries of a text before the trainer writes it itself")
    grace_s: float = Field(30.0, ge=0, description="seconds at shutdown for the texts in hand")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.engine == "vllm") != (self.upstream is not None):
            raise ValueError("--engine vllm goes with --upstream, the address of the server; give both or neither")
        return self

    def open_queue(self) -> Queue:
        """The queue to work on; nothing is connected yet.

        Raises:
            InvalidInput: its URL or the file with its password cannot be used.
        """
        limits = QueueLimits(lease_s=self.lease_s, max_deliveries=self.max_deliveries)
        return open_queue(self.redis_url, limits, self.redis_password_file)
