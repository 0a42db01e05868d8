"""Where the coordinator runs: flags, or environment variables `TUTELAGE_COORDINATOR_*`."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """database_url: SQLite below data_dir by default; lease_s: how long a trainer may be silent."""

    model_config = SettingsConfigDict(
        env_prefix="TUTELAGE_COORDINATOR_", cli_kebab_case=True, cli_prog_name="python -m tutelage.coordinator"
    )

    database_url: str | None = Field(default=None, description="sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME")
    redis_url: str | None = Field(default=None, description="the queue; without it dead letters cannot be looked at")
    data_dir: Path = Field(default=Path("data"), description="uploaded files, artefacts of runs, and SQLite's file")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8400, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    lease_s: float = Field(default=30.0, gt=0, description="seconds after the last heartbeat until a run is taken away")
    max_file_bytes: int = Field(default=4 * 2**30, ge=1, description="the largest file that may be uploaded")

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir.resolve() / 'coordinator.db'}"

    def artefacts(self, run_id: str) -> Path:
        """Where a run's checkpoints and its model are, on a directory shared with its trainer."""
        return self.data_dir.resolve() / "artefacts" / run_id

    @property
    def files(self) -> Path:
        """Where uploaded bytes are."""
        return self.data_dir.resolve() / "files"
