"""The compose file in containers of `contained`: the images for CPUs, over stand-ins for public ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contained import Engine
from pages import ROOT

COMPOSE = ROOT / ".venv-deploy" / "bin" / "docker-compose"
BASE, SERVERS = "localhost/python-of-debian", "localhost/servers-of-debian"
MADE_OF = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE")
FOLDERS = ("docker", "k8s", "services", "clients", "examples/skill")
OWN = {f"{name.upper()}_IMAGE": f"localhost/tutelage/{name}" for name in ("coordinator", "trainer", "teacher")}
SCRIPTS, START = ROOT / "tests" / "e2e" / "images", '["/usr/local/bin/start-postgres"]'
STAND_INS = {"PYTHON_IMAGE": BASE, "POSTGRES_IMAGE": SERVERS, "REDIS_IMAGE": SERVERS}


@dataclass(frozen=True)
class Deployed:
    """clone: what of the repository is needed, and a place for secrets; url: where the coordinator is published"""

    engine: Engine
    clone: Path
    url: str

    def compose(self, *arguments: str, timeout: float = 240) -> str:
        command = [str(COMPOSE), "--file", str(self.clone / "docker" / "compose.yaml"), "--profile", "cpu"]
        return self.engine.run(*command, *arguments, timeout=timeout).stdout

    @property
    def key(self) -> str:
        """For everything at the coordinator."""
        return (self.clone / "docker" / "secrets" / "admin-key").read_text()

    @property
    def services(self) -> dict[str, Any]:
        """As Compose reads them."""
        return json.loads(self.compose("config", "--format", "json"))["services"]

    @property
    def containers(self) -> dict[str, dict[str, Any]]:
        """What podman knows of each, by service."""
        names = self.engine.podman("ps", "--format", "{{.Names}}").stdout.split()
        inspected = json.loads(self.engine.podman("inspect", *names).stdout) if names else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in inspected}


def stand_in(engine: Engine, folder: Path) -> None:
    """Debian's Python in place of the public one, and its PostgreSQL and Redis in one image."""
    made = engine.run(str(SCRIPTS / "stand-ins"), str(folder), check=False, timeout=200)
    if made.returncode != 0 and re.search("resolve|connect", made.stderr):
        pytest.skip(f"Debian's packages are not reached from here: {made.stderr.strip().splitlines()[-1]}")
    assert made.returncode == 0, made.stderr
    engine.podman("import", "--change", "ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin", str(folder / "python.tar"), BASE)
    starts = ("--change", "ENV PATH=/usr/lib/postgresql/15/bin:/usr/bin:/bin", "--change", f"ENTRYPOINT {START}")
    engine.podman("import", *starts, str(folder / "servers.tar"), SERVERS)
