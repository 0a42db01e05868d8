"""Containers without a Docker engine: podman with all that it keeps in one folder, and Compose on podman's socket.

Debian's podman on a machine without systemd: runc, as crun wants other control groups; limits that the machine allows;
builds by chroot. Nothing fires healthchecks there, so `probing` does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pip_settings import pip_settings

CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroupns = "host"
[network]
network_backend = "netavark"
network_config_dir = "{folder}/networks"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
init_path = "/usr/bin/catatonit"
tmp_dir = "{folder}/libpod"
"""
STORAGE = """
[storage]
driver = "{driver}"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
MADE_BY_PODMAN = {"networks": {"podman"}, "volumes": set[str](), "containers": set[str]()}


class Engine:
    """folder: becomes its own, and is gone after `remove`"""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "podman.sock"
        # a layer is a copy of all that is below it where the kernel has no overlays
        driver = "overlay" if "\toverlay\n" in Path("/proc/filesystems").read_text() else "vfs"
        (folder / "containers.conf").write_text(CONTAINERS.format(folder=folder))
        (folder / "storage.conf").write_text(STORAGE.format(folder=folder, driver=driver))
        self.environment = os.environ | {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "DISABLE_HC_SYSTEMD": "true",
            "DOCKER_HOST": f"unix://{self.socket}",
        }

    def podman(self, *arguments: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return self.run("podman", *arguments, check=check, timeout=timeout)

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """With what it wrote, which is shown where it fails."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert done.returncode == 0 or not check, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def build(self, image: str, context: Path, dockerfile: str, target: str, arguments: dict[str, str]) -> None:
        """Build a target, with the index and the certificates that pip has on this machine."""
        settings, paths = pip_settings()
        (self._folder / "pip.conf").write_text(settings)
        command = ["build", "--isolation", "chroot", "--format", "docker", "--layers"]
        command += ["--file", str(context / dockerfile), "--ignorefile", str(context / f"{dockerfile}.dockerignore")]
        command += ["--target", target, "--tag", image, "--secret", f"id=pip_conf,src={self._folder / 'pip.conf'}"]
        for path in paths:
            command += ["--volume", f"{path}:{path}:ro"]
        for name, value in arguments.items():
            command += ["--build-arg", f"{name}={value}"]
        self.podman(*command, str(context), timeout=400)

    def there(self) -> dict[str, set[str]]:
        """What is there by kind, less what podman always has."""
        asked = {
            "networks": ("network", "ls", "--format", "{{.Name}}"),
            "volumes": ("volume", "ls", "--format", "{{.Name}}"),
            "containers": ("ps", "--all", "--format", "{{.Names}}"),
        }
        return {kind: set(self.podman(*what).stdout.split()) - MADE_BY_PODMAN[kind] for kind, what in asked.items()}

    @contextmanager
    def serving(self) -> Iterator[None]:
        """The API that Compose speaks to."""
        command = ["podman", "system", "service", "--time=0", self.environment["DOCKER_HOST"]]
        with (self._folder / "service.log").open("w") as log:
            service = subprocess.Popen(command, env=self.environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            until = time.monotonic() + 30
            while not self.socket.exists():
                assert service.poll() is None and time.monotonic() < until, (self._folder / "service.log").read_text()
                time.sleep(0.05)
            yield
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(30)

    @contextmanager
    def probing(self) -> Iterator[None]:
        """Within the block healthchecks are run, as timers would do it."""
        over = threading.Event()

        def probe() -> None:
            while not over.wait(1):
                for name in self.podman("ps", "--format", "{{.Names}}").stdout.split():
                    self.podman("healthcheck", "run", name, check=False)

        probing = threading.Thread(target=probe)
        probing.start()
        try:
            yield
        finally:
            over.set()
            probing.join()

    def remove(self) -> None:
        self.podman("rm", "--all", "--force", "--time", "5", check=False)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((each for each in mounts if each.startswith(f"{self._folder}/")), reverse=True):
            self.run("umount", "--lazy", mount, check=False)
        shutil.rmtree(self._folder)
