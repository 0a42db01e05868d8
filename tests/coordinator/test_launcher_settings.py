"""Which launcher the settings name, and what a trainer is started with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tutelage.coordinator.launchers import Launch, open_launcher
from tutelage.coordinator.launchers.kubernetes import KubernetesLauncher
from tutelage.coordinator.launchers.processes import ProcessLauncher
from tutelage.coordinator.settings import Settings
from tutelage_client.errors import InvalidInput


def opened(tmp_path: Path, **changed: Any) -> Any:
    return open_launcher(Settings.model_validate({"data_dir": tmp_path, **changed}))


def test_runs_wait_for_trainers_that_ask_unless_a_launcher_is_named(tmp_path: Path):
    assert opened(tmp_path) is None


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        (1, ["-m", "tutelage.trainer"]),
        (3, ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", "-m", "tutelage.trainer"]),
    ],
)
async def test_a_process_is_started_with_this_python_and_told_where_the_services_are(
    processes: int, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What the environment says already stands."""
    monkeypatch.setenv("TUTELAGE_TRAINER_REDIS_URL", "redis://trainer@queue/0")
    (tmp_path / "password").write_text("word")
    launcher = opened(
        tmp_path,
        launcher="subprocess",
        launch_processes=processes,
        host="0.0.0.0",
        port=8411,
        teacher_addresses=["127.0.0.0/8", "teachers.test:8200"],
        redis_url="redis://coordinator@queue/0",
        redis_password_file=tmp_path / "password",
        trainer_key_file=tmp_path / "key",
    )
    assert isinstance(launcher, ProcessLauncher)
    assert launcher.command == [sys.executable, *expected]
    told = {name: value for name, value in launcher.env.items() if name.startswith("TUTELAGE_TRAINER_")}
    assert told == {
        "TUTELAGE_TRAINER_COORDINATOR": "http://127.0.0.1:8411",
        "TUTELAGE_TRAINER_COORDINATOR_KEY_FILE": str(tmp_path / "key"),
        "TUTELAGE_TRAINER_TEACHER_ADDRESSES": "127.0.0.0/8,teachers.test:8200",
        "TUTELAGE_TRAINER_REDIS_URL": "redis://trainer@queue/0",
        "TUTELAGE_TRAINER_REDIS_PASSWORD_FILE": str(tmp_path / "password"),
    }


def test_in_a_cluster_the_account_of_the_pod_is_used(tmp_path: Path):
    (tmp_path / "namespace").write_text("tutelage")
    launcher = opened(tmp_path, launcher="kubernetes", kubernetes_url="http://api", kubernetes_account=tmp_path)
    assert isinstance(launcher, KubernetesLauncher)


def test_where_keys_are_asked_for_the_launched_need_one(tmp_path: Path):
    with pytest.raises(InvalidInput, match="give --trainer-key-file"):
        opened(tmp_path, launcher="subprocess", host="0.0.0.0")


def test_a_port_that_nobody_knows_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="give a --port"):
        opened(tmp_path, launcher="subprocess", port=0)


def test_outside_a_cluster_the_coordinator_ends_with_one_sentence(tmp_path: Path):
    command = [sys.executable, "-m", "tutelage.coordinator", "--data-dir", str(tmp_path), "--launcher", "kubernetes"]
    command += ["--kubernetes-account", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot read the service account in" in done.stderr
    assert "runs in a pod whose account is mounted there" in done.stderr


async def test_where_nothing_can_be_started_the_launch_says_so(tmp_path: Path):
    (tmp_path / "file").touch()
    launcher = ProcessLauncher(tmp_path / "file", [], {})
    with pytest.raises(Exception, match="cannot start a process in"):
        await launcher.launch(Launch("run", 1))
