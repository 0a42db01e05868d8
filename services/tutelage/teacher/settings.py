"""Where and how a teacher runs: flags, or environment variables `TUTELAGE_TEACHER_*`. No model library is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tutelage.engines import FakeOptions, HfOptions
from tutelage.teacher.admission import Limits


class Settings(BaseSettings):
    """One teacher process: its engine, its two doors and its limits."""

    model_config = SettingsConfigDict(
        env_prefix="TUTELAGE_TEACHER_",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_prog_name="python -m tutelage.teacher",
    )

    name: str = Field(
        "teacher", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="the name that runs use; also its queue"
    )
    engine: Literal["hf", "fake"] = Field("hf", description="hf: a transformers model; fake: a toy model for tests")
    model: str | None = Field(None, description="model directory, or hub id with --revision")
    revision: str | None = Field(None, description="commit of a hub id")
    dtype: Literal["float32", "bfloat16", "auto"] = Field("float32", description="of the weights")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model runs")
    fake_options: FakeOptions = Field(FakeOptions(), description="JSON options of the fake engine")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8200, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    public_url: str | None = Field(None, pattern=r"^https?://", description="address that others reach this teacher at")
    redis_url: str | None = Field(None, description="work on the queue at redis://HOST:PORT/DB too")
    coordinator: str | None = Field(None, pattern=r"^https?://", description="coordinator to register at")
    keys_file: Path | None = Field(None, description="sha256 of each accepted bearer key, one in hex a line")
    max_batch_tokens: int = Field(16_384, ge=1, description="tokens of one engine call")
    max_request_tokens: int = Field(1_048_576, ge=1, description="tokens of one request")
    max_waiting_tokens: int = Field(1_048_576, ge=1, description="tokens that may wait before HTTP answers 503")
    max_candidates: int = Field(4096, ge=1, description="candidate ids at one position")
    grace_s: int = Field(10, ge=0, description="seconds for open work at shutdown")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.engine == "hf" and self.model is None:
            raise ValueError("--engine hf needs --model, a model directory or a hub id")
        return self

    def engine_options(self) -> FakeOptions | HfOptions:
        if self.engine == "fake":
            return self.fake_options
        assert self.model is not None
        return HfOptions(model=self.model, revision=self.revision, dtype=self.dtype, device=self.device)

    def limits(self) -> Limits:
        return Limits(self.max_request_tokens, self.max_candidates, self.max_waiting_tokens)
