"""The launcher that the settings name."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from tutelage.coordinator.launchers.base import Launcher, LaunchFailed
from tutelage.coordinator.launchers.cluster import Cluster
from tutelage.coordinator.launchers.kubernetes import KubernetesLauncher
from tutelage.coordinator.launchers.processes import ProcessLauncher
from tutelage.coordinator.settings import Settings
from tutelage_client.errors import InvalidInput

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not listened on
KEY_FILE = "TUTELAGE_TRAINER_COORDINATOR_KEY_FILE"


def open_launcher(settings: Settings) -> Launcher | None:
    """None: runs wait for trainers that ask for them.

    Raises:
        InvalidInput: it could not work here; the sentence says what it needs.
    """
    match settings.launcher:
        case "subprocess":
            return ProcessLauncher(settings.data_dir.resolve() / "launches", _command(settings), _variables(settings))
        case "kubernetes":
            try:
                cluster = Cluster(settings.kubernetes_url, settings.kubernetes_account)
            except LaunchFailed as error:
                raise InvalidInput(f"launcher: {error}", "launcher") from error
            return KubernetesLauncher(cluster, settings.launch_template, settings.launch_nodes)
    return None


def _command(settings: Settings) -> list[str]:
    """One process, or as many under torchrun as `launch_processes` says. torch is looked for, not imported."""
    if find_spec("torch") is None:
        raise InvalidInput(
            "launcher: subprocess starts trainers with this Python, which has no torch; install tutelage[trainer] "
            "here, or start trainers elsewhere with --launcher none",
            "launcher",
        )
    if settings.port == 0:
        raise InvalidInput("launcher: subprocess tells trainers where the coordinator is; give a --port", "launcher")
    python, trainer = [sys.executable, "-m"], "tutelage.trainer"
    if settings.launch_processes == 1:
        return [*python, trainer]
    several = ["--standalone", "--nproc-per-node", str(settings.launch_processes), "-m", trainer]
    return [*python, "torch.distributed.run", *several]


def _variables(settings: Settings) -> dict[str, str]:
    """The environment of this process, in which TUTELAGE_TRAINER_* says otherwise, or more."""
    host = ANY_ADDRESS.get(settings.host, settings.host)
    ours = {"TUTELAGE_TRAINER_COORDINATOR": f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"}
    ours["TUTELAGE_TRAINER_TEACHER_ADDRESSES"] = ",".join(settings.teacher_addresses)
    if settings.redis_url is not None:
        ours["TUTELAGE_TRAINER_REDIS_URL"] = settings.redis_url
    if settings.redis_password_file is not None:
        ours["TUTELAGE_TRAINER_REDIS_PASSWORD_FILE"] = str(settings.redis_password_file.resolve())
    if settings.trainer_key_file is not None:
        ours[KEY_FILE] = str(settings.trainer_key_file.resolve())
    told = ours | dict(os.environ)
    if settings.asks_for_keys and KEY_FILE not in told:
        raise InvalidInput(
            "launcher: what is launched needs a key as any trainer does; give --trainer-key-file", "launcher"
        )
    return told
