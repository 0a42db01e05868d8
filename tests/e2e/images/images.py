"""The images for CPUs as they are: what is in them, how large they are, and what they say where they cannot work.

`tests/e2e/images/run` runs this file, which pytest does not collect by itself.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from containers_up import BASE, OWN, Deployed
from pages import ROOT

TARGETS = {image.rpartition("/")[2]: image for image in OWN.values()}
PYTHON = "/opt/tutelage/bin/python"
BILL = "/opt/tutelage/share/sbom.cdx.json"


@pytest.fixture(params=TARGETS)
def image(request: pytest.FixtureRequest) -> str:
    return TARGETS[request.param]


def ran(deployed: Deployed, image: str, *command: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command in a container as locked as compose.yaml locks it; the image's own where none is given."""
    locked = ["--rm", "--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp", "--cap-drop", "all"]
    entry = ("--entrypoint", json.dumps(command)) if command else ()
    locks = (*locked, "--security-opt", "no-new-privileges", "--network", "none")
    return deployed.engine.podman("run", *locks, *entry, *flags, image, check=False, timeout=60)


def inspected(deployed: Deployed, image: str) -> dict[str, Any]:
    [found] = json.loads(deployed.engine.podman("image", "inspect", image).stdout)
    return found


def test_an_image_runs_as_a_numbered_user_that_may_write_to_data_and_tmp_alone(deployed: Deployed, image: str) -> None:
    assert inspected(deployed, image)["Config"]["User"] == "65532:65532"
    script = 'id -u; for each in /data /tmp; do touch "$each/file" && echo "$each"; done; '
    script += "find / -xdev -writable -type d -not -path '/proc/*' 2> /dev/null"
    done = ran(deployed, image, "/bin/sh", "-c", script, flags=("--volume", "/data"))
    assert done.stdout.split()[:3] == ["65532", "/data", "/tmp"], done.stderr
    assert set(done.stdout.split()[3:]) <= {"/data", "/tmp", "/var/tmp", "/run/lock", "/dev/shm", "/dev/mqueue"}


def test_no_compiler_and_no_pip_are_left_and_no_layer_was_installed_into(deployed: Deployed, image: str) -> None:
    names = "cc c++ gcc g++ cpp clang tcc as ld make cmake ninja rustc go pip pip3 cyclonedx-py git curl"
    script = (
        f"for each in {names}; do command -v $each; done; ls /opt /opt/tutelage/bin; find / -name pip.conf -size +0"
    )
    said = ran(deployed, image, "/bin/sh", "-c", script).stdout.split()
    assert not set(said) & {*names.split(), "pip.conf"}
    assert not [word for word in said if word.startswith("/usr")], said
    assert {"tutelage", "healthcheck.py"} <= set(said)
    layers = deployed.engine.podman("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout
    assert "COPY" in layers
    assert not re.search(r"pip install|pip_conf|apt-get", layers)


def test_an_image_says_what_it_is_and_how_to_ask_for_its_health(deployed: Deployed, image: str) -> None:
    found = inspected(deployed, image)
    config = found["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["title"] == f"tutelage-{image.rpartition('/')[2]}"
    assert labels["base.name"] == BASE
    assert {"description", "licenses", "version", "revision", "vendor"} <= labels.keys()
    asked = found.get("Healthcheck", {}).get("Test", ["NONE"])
    assert (asked == ["NONE"]) == image.endswith("trainer")
    assert config["Entrypoint"][:2] == [PYTHON, "-m"]


def test_the_bill_of_materials_lists_what_is_installed_as_it_is_locked(deployed: Deployed, image: str) -> None:
    bill = json.loads(ran(deployed, image, "/bin/cat", BILL).stdout)
    assert bill["bomFormat"] == "CycloneDX"
    listed = {plain(each["name"]): each["version"] for each in bill["components"]}
    listing = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
    there = json.loads(ran(deployed, image, PYTHON, "-c", listing).stdout)
    assert listed == {plain(name): version for name, version in there.items()}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    locked = {plain(name): version for name, version in pins.items()}
    assert {name: version.partition("+")[0] for name, version in listed.items() if name != "tutelage"}.items() <= (
        locked.items()
    )
    assert ("torch" in listed) == (not image.endswith("coordinator"))


def plain(name: str) -> str:
    """As package indexes compare names."""
    return re.sub(r"[-_.]+", "-", name).lower()


MOST_BYTES = {"coordinator": 200e6, "trainer": 1.35e9, "teacher": 1.35e9}


def test_an_image_is_no_larger_than_it_should_be(deployed: Deployed) -> None:
    """Above the base image, which is a stand-in here. TUTELAGE_TEST_IMAGES names a file for the sizes."""
    base = inspected(deployed, BASE)["Size"]
    sizes = {target: inspected(deployed, image)["Size"] - base for target, image in TARGETS.items()}
    if into := os.environ.get("TUTELAGE_TEST_IMAGES"):
        Path(into).write_text(
            json.dumps({"command": "make images", "base": base, "bytes_above_base": sizes}, indent=1) + "\n"
        )
    assert not {target: size for target, size in sizes.items() if size > MOST_BYTES[target]}


NO_KEY = "TUTELAGE_COORDINATOR_ADMIN_KEY_FILE=/run/secrets/admin-key"
NO_DATABASE = "TUTELAGE_COORDINATOR_DATABASE_URL=postgresql+psycopg://tutelage@127.0.0.1:5432/tutelage"
# Image, a variable, and what is said.
REFUSED: dict[str, tuple[str, str, str]] = {
    "a coordinator that others reach without a key": ("coordinator", "", "callers need a key and none is known"),
    "a coordinator without its secret": ("coordinator", NO_KEY, "cannot read the key file /run/secrets/admin-key"),
    "no database": ("coordinator", NO_DATABASE, "Connection refused; start that server, or mend --database-url"),
    "a newer schema": ("coordinator", "TUTELAGE_COORDINATOR_DATA_DIR=/newer", "has the schema 9999 of a newer release"),
    "a trainer without its secret": (
        "trainer",
        "TUTELAGE_TRAINER_COORDINATOR_KEY_FILE=/run/secrets/trainer-key",
        "cannot read the key file /run/secrets/trainer-key",
    ),
    "a trainer without its GPU": ("trainer", "TUTELAGE_TRAINER_REQUIRE_GPU=true", "torch sees no GPU here; give"),
    "a teacher without its GPU": (
        "teacher",
        "TUTELAGE_TEACHER_MODEL=/model TUTELAGE_TEACHER_DEVICE=cuda",
        "torch sees no GPU here; give",
    ),
    "a teacher without a model": ("teacher", "TUTELAGE_TEACHER_MODEL=/none", "/none is not a directory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_container_that_cannot_work_ends_with_one_sentence(deployed: Deployed, tmp_path: Path, case: str) -> None:
    target, variables, sentence = REFUSED[case]
    newer = sqlite3.connect(tmp_path / "coordinator.db")
    newer.execute("CREATE TABLE alembic_version (version_num TEXT)")
    newer.execute("INSERT INTO alembic_version VALUES ('9999')")
    newer.commit()
    newer.close()
    for path in (tmp_path, tmp_path / "coordinator.db"):
        os.chown(path, 65532, 65532)
    model = deployed.clone / "examples" / "skill" / "teacher"
    mounts = ("--volume", "/data", "--volume", f"{tmp_path}:/newer", "--volume", f"{model}:/model:ro")
    given = [word for each in variables.split() for word in ("--env", each)]
    done = ran(deployed, TARGETS[target], flags=(*mounts, *given))
    assert done.returncode not in (0, 70)
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # but for what was logged before
    assert len(said) == 1, done.stderr
    assert sentence in said[0]
