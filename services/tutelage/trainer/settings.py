"""Where this trainer runs; never a number that changes a loss."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from tutelage.addresses import LOOPBACK, Addresses
from tutelage.queue import Queue, QueueLimits, open_queue
from tutelage.trainer.crashes import CRASH_AT
from tutelage.trainer.trackers import TrackerName
from tutelage_client.client import read_key
from tutelage_client.errors import InvalidInput


class Settings(BaseSettings):
    """Flags of `python -m tutelage.trainer`, each also `TUTELAGE_TRAINER_*`."""

    model_config = SettingsConfigDict(
        env_prefix="TUTELAGE_TRAINER_",
        cli_kebab_case=True,
        cli_prog_name="python -m tutelage.trainer",
        cli_parse_none_str="\0",  # no argument can be that, so that "null" is a name as any other
    )

    coordinator: str = Field(default="http://127.0.0.1:8400", description="the coordinator's URL")
    coordinator_key_file: Path | None = Field(
        default=None, description="file with the key that leases runs, where the coordinator asks for one"
    )
    redis_url: str = Field(default="redis://127.0.0.1:6379/0", description="the queue")
    redis_password_file: Path | None = Field(
        default=None, description="file with the password of the user in --redis-url"
    )
    run: str | None = Field(default=None, description="execute this run and exit by the exit-code contract")
    epoch: int | None = Field(default=None, description="with --run: take over the lease of this epoch")
    name: str = Field(default_factory=socket.gethostname, description="this worker's name in leases and logs")
    teacher_key_file: Path | None = Field(
        default=None, description="file with the bearer key for teachers that ask for one"
    )
    teacher_addresses: Addresses = Field(
        default=LOOPBACK, description="where teachers are asked over HTTP, and get that key; as the coordinator's"
    )
    require_gpu: bool = Field(
        default=False,
        description="do not start where torch sees no GPU; otherwise the student is on the processor then",
    )
    tracker: TrackerName | None = Field(
        default=None,
        description="also hand each row of metrics to this one, which is set up by its own environment, as WANDB_MODE; "
        "TensorBoard's files are always written",
    )
    max_queued_tokens: int = Field(
        default=QueueLimits().max_tokens,
        ge=1,
        description="tokens of a teacher's open jobs, of all runs, above which it waits",
    )
    max_queued_bytes: int = Field(default=QueueLimits().max_bytes, ge=1, description="the same in bytes of questions")
    crash_at: str | None = Field(
        default=None,
        pattern=CRASH_AT,
        description="for tests: die at this point, or at its N-th passing (POINT:N), in a run's first attempt",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )

    def arguments(self) -> list[str]:
        """The flags of a process with the same settings, whatever its environment says."""
        said = self.model_dump(mode="json", exclude_none=True)
        values = {name: ",".join(value) if isinstance(value, list) else value for name, value in said.items()}
        return [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]

    def open_queue(self) -> Queue:
        """The queue to ask on; nothing is connected yet.

        Raises:
            InvalidInput: its URL or the file with its password cannot be used.
        """
        limits = QueueLimits(max_tokens=self.max_queued_tokens, max_bytes=self.max_queued_bytes)
        return open_queue(self.redis_url, limits, self.redis_password_file)

    def check_device(self) -> None:
        """Raises: InvalidInput: a GPU is required and torch sees none."""
        if self.require_gpu:
            import torch  # here, because it costs a start two seconds

            if not torch.cuda.is_available():
                raise InvalidInput(
                    "require-gpu: torch sees no GPU here; give this container one, or take the trainer for processors",
                    "require_gpu",
                )

    def coordinator_key(self) -> str | None:
        """The key in `coordinator_key_file`.

        Raises:
            InvalidInput: the file does not hold one key.
        """
        return read_key(self.coordinator_key_file) if self.coordinator_key_file else None

    def teacher_key(self) -> str | None:
        """The key in `teacher_key_file`.

        Raises:
            InvalidInput: the file does not hold one key.
        """
        return read_key(self.teacher_key_file) if self.teacher_key_file else None
