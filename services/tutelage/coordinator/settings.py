"""Where the coordinator runs: flags, or environment variables `TUTELAGE_COORDINATOR_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import URL, make_url

from tutelage.addresses import LOOPBACK, Addresses, split
from tutelage.queue import Queue, open_queue
from tutelage.serving import is_loopback
from tutelage_client.client import read_key
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Places
from tutelage_client.wire.forms import ORIGIN


class Settings(BaseSettings):
    """database_url: SQLite below data_dir by default; lease_s: how long a trainer may be silent."""

    model_config = SettingsConfigDict(
        env_prefix="TUTELAGE_COORDINATOR_",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_prog_name="python -m tutelage.coordinator",
    )

    database_url: str | None = Field(default=None, description="sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME")
    database_password_file: Path | None = Field(
        default=None, description="file with the password of the user in --database-url"
    )
    redis_url: str | None = Field(default=None, description="the queue; without it dead letters cannot be looked at")
    redis_password_file: Path | None = Field(
        default=None, description="file with the password of the user in --redis-url"
    )
    data_dir: Path = Field(default=Path("data"), description="uploaded files, artefacts of runs, and SQLite's file")
    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8400, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    lease_s: float = Field(default=30.0, gt=0, description="seconds after the last heartbeat until a run is taken away")
    max_file_bytes: int = Field(default=4 * 2**30, ge=1, description="the largest file that may be uploaded")
    max_project_bytes: int | None = Field(
        default=None,
        ge=1,
        description="the most bytes of all files of a project, with what has arrived of unfinished ones; default: any",
    )

    teacher_addresses: Addresses = Field(
        default=LOOPBACK,
        description="where teachers may be: HOST, *.DOMAIN or NETWORK, each with :PORT where one is meant; several "
        "with commas",
    )
    shared_paths: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="where keys are asked for: folders of models and data, as trainers see them, in which specs may "
        "name paths; several with commas",
    )
    keep_rollouts_days: float | None = Field(
        default=None,
        gt=0,
        le=36_600,
        description="days from a run's end until the rollouts that it showed or was pushed are deleted; default: never",
    )
    keep_files_days: float | None = Field(
        default=None,
        gt=0,
        le=36_600,
        description="days from a run's end until its checkpoints and unpacked inputs are deleted, so that it cannot be "
        "forked; its model stays; default: never",
    )
    keep_audit_days: float | None = Field(
        default=None, ge=1, le=36_600, description="days until an entry of the audit is deleted; default: never"
    )

    launcher: Literal["none", "subprocess", "kubernetes"] = Field(
        default="none", description="what starts a trainer for a run that none has asked for: nothing, or one of these"
    )
    launch_after_s: float = Field(
        default=2.0, ge=0, description="seconds that a queued run waits for a trainer until one is launched for it"
    )
    launch_at_most: int = Field(default=1, ge=1, description="launched trainers at one time")
    launch_processes: int = Field(
        default=1, ge=1, description="of a trainer launched as subprocess; above 1 under torchrun"
    )
    launch_nodes: int = Field(
        default=1, ge=1, description="of a trainer launched in a cluster: 1 is a Job, more are a TrainJob"
    )
    launch_template: str = Field(
        default="trainer", description="the CronJob that Jobs are copied from, or the TrainingRuntime of TrainJobs"
    )
    kubernetes_url: str = Field(default="https://kubernetes.default.svc", pattern=ORIGIN, description="the API server")
    kubernetes_account: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"),
        description="folder with token, ca.crt and namespace of the coordinator's service account",
    )

    require_keys: bool = Field(
        default=False, description="ask for keys on a loopback address too; on any other one they always are"
    )
    admin_key_file: Path | None = Field(
        default=None, description="file with a key for everything, from which the others are made"
    )
    trainer_key_file: Path | None = Field(
        default=None, description="file with the trainers' key, which leases runs of the project `default`"
    )
    teacher_key_file: Path | None = Field(
        default=None, description="file with the teachers' key, which registers them in the project `default`"
    )

    @field_validator("shared_paths", mode="before")
    @classmethod
    def _split(cls, given: Any) -> Any:
        """In the environment they stand in one line, with commas."""
        return split(given)

    @field_validator("shared_paths")
    @classmethod
    def _are_absolute(cls, folders: tuple[Path, ...]) -> tuple[Path, ...]:
        for folder in folders:
            if not folder.is_absolute() or folder == Path(folder.anchor):
                raise ValueError(f"{str(folder)!r} is no folder by its absolute path; give one such as /models")
        return folders

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers need one: not where only this machine can call."""
        return self.require_keys or not is_loopback(self.host)

    @property
    def key_files(self) -> dict[str, Path]:
        """The files with keys by role."""
        given = {"admin": self.admin_key_file, "trainer": self.trainer_key_file, "teacher": self.teacher_key_file}
        return {role: path for role, path in given.items() if path is not None}

    @property
    def database(self) -> URL:
        """Where runs are.

        Raises:
            InvalidInput: the file with the password cannot be used, or no user of a URL needs it.
            ArgumentError: not a URL.
        """
        url = make_url(self.database_url or f"sqlite:///{self.data_dir.resolve() / 'coordinator.db'}")
        if self.database_password_file is None:
            return url
        if url.username is None or url.password is not None:
            raise InvalidInput(
                "database-password-file needs a database-url that names a user and no password, "
                "such as postgresql+psycopg://USER@HOST/NAME",
                "database_password_file",
            )
        return url.set(password=read_key(self.database_password_file))

    def open_queue(self) -> Queue | None:
        """The queue whose dead letters are looked at, where it is known.

        Raises:
            InvalidInput: its URL or the file with its password cannot be used.
        """
        if self.redis_url is None:
            return None
        return open_queue(self.redis_url, password_file=self.redis_password_file)

    def artefacts(self, run_id: str) -> Path:
        """Where a run's checkpoints and its model are, on a directory shared with its trainer."""
        return self.artefacts_root / run_id

    @property
    def artefacts_root(self) -> Path:
        """Where those of all runs are."""
        return self.data_dir.resolve() / "artefacts"

    @property
    def places(self) -> Places:
        """Which paths specs may name: on a machine whose programs ask without keys, whatever these can read."""
        shared = list(map(str, self.shared_paths)) if self.asks_for_keys else None
        return Places(own=str(self.data_dir.resolve()), shared=shared)

    @property
    def files(self) -> Path:
        """Where uploaded bytes are."""
        return self.data_dir.resolve() / "files"
