"""A trainer that waits for runs: its child has the same settings as itself, each of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import CliApp
from recording_worker import RecordingWorker, lease

from tutelage.trainer.agent import execute
from tutelage.trainer.settings import Settings

# Every setting, with another value than it has by itself.
OTHERWISE: dict[str, Any] = {
    "coordinator": "http://coordinator:1",
    "coordinator_key_file": Path("/keys/coordinator key"),
    "redis_url": "redis://trainer@queue:2/3",
    "redis_password_file": Path("/keys/redis"),
    "run": "run-1",
    "epoch": 7,
    "name": 'null, "a" -b [c]',
    "teacher_key_file": Path("keys/teacher"),
    "teacher_addresses": ("teacher:8200", "10.0.0.0/8"),
    "require_gpu": True,
    "tracker": "wandb",
    "max_queued_tokens": 20,
    "max_queued_bytes": 30,
    "crash_at": "before_save:2",
    "log_level": "debug",
}


def variable(name: str) -> str:
    return f"TUTELAGE_TRAINER_{name.upper()}"


def test_a_process_with_the_arguments_of_settings_has_the_same() -> None:
    assert OTHERWISE.keys() == Settings.model_fields.keys(), "a new setting reaches the child too"
    assert [name for name, value in Settings() if OTHERWISE[name] == value] == []
    settings = Settings(**OTHERWISE)
    assert CliApp.run(Settings, cli_args=settings.arguments()) == settings


def test_the_arguments_of_settings_win_over_the_environment_where_they_are_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings()
    told = {name for name, value in settings if value is not None}
    for name in told:
        value = OTHERWISE[name]
        monkeypatch.setenv(variable(name), ",".join(value) if isinstance(value, tuple) else str(value))
    assert dict(Settings()).items() >= {name: OTHERWISE[name] for name in told}.items()
    assert CliApp.run(Settings, cli_args=settings.arguments()) == settings


async def test_a_child_wants_the_gpu_that_its_agent_was_told_to_want(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    worker: Any = RecordingWorker(lease({}, str(tmp_path)))
    settings = Settings(coordinator="http://127.0.0.1:9", require_gpu=True)
    await execute(settings, worker, worker.granted, asyncio.Event())
    assert "require-gpu: torch sees no GPU here" in capfd.readouterr().err
