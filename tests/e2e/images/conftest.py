"""The images for CPUs and the whole compose file once, for all tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from contained import Engine
from containers_up import COMPOSE, FOLDERS, MADE_OF, OWN, STAND_INS, Deployed, stand_in
from pages import ROOT

from tutelage.standalone.stack import free_port


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """With the base images."""
    if os.geteuid() != 0:
        pytest.skip("images are built and run as root")
    missing = [name for name in ("podman", "runc", "mmdebstrap", str(COMPOSE)) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not here; tests/e2e/images/run installs Debian's, `make lint-deploy` Compose")
    folder = Path(tempfile.mkdtemp(prefix="tutelage-images-"))
    made = Engine(folder)
    try:
        stand_in(made, folder)
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def deployed(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The images, built as the compose file says."""
    clone = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("secrets", "__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, clone / name, ignore=ignored)
    for name in MADE_OF:
        shutil.copy(ROOT / name, clone / name)
    port = free_port()
    engine.environment |= STAND_INS | OWN | {"PORT": str(port)}
    subprocess.run([clone / "docker" / "make-secrets"], check=True, timeout=30)
    built = Deployed(engine, clone, f"http://127.0.0.1:{port}")
    for service in built.services.values():
        if how := service.get("build"):
            engine.build(service["image"], Path(how["context"]), how["dockerfile"], how["target"], how["args"])
    return built


@pytest.fixture(scope="session")
def stack(deployed: Deployed) -> Iterator[Deployed]:
    """All of `--profile cpu`, up and well."""
    with deployed.engine.serving():
        with deployed.engine.probing():
            deployed.compose("up", "--detach", "--wait", "--no-build", "--pull", "never", "--wait-timeout", "180")
        yield deployed
