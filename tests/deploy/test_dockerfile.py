"""The Dockerfile: what each image is made of, and what stays out of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from deployed import ROOT, lineage, stages, unread

from tutelage.standalone.stack import free_port

TARGETS = ("coordinator", "trainer", "teacher", "teacher-vllm", "trainer-cuda")
SOURCES = {"coordinator": "coordinator-packages", "teacher-vllm": "vllm-packages"}


def test_every_image_has_its_target() -> None:
    assert set(TARGETS) <= set(stages())


@pytest.mark.parametrize("target", TARGETS)
def test_no_stage_in_which_something_is_installed_is_part_of_an_image(target: str) -> None:
    """Compilers, pip, its configuration and the index that it was told end with the stages that use them."""
    line = lineage(target)
    assert line[-1].base == "${PYTHON_IMAGE}"
    for stage in line:
        assert not [step for step in stage.all("RUN") if re.search(r"pip|apt|gcc|--mount", step)], stage.name
        assert not [name for name in stage.all("ARG") if name.startswith("PIP")], stage.name
    assert [step for stage in line for step in stage.all("COPY") if step.startswith("--from=")] == [
        f"--from={SOURCES.get(target, 'model-packages')} /opt/tutelage /opt/tutelage"
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_numbered_user_and_is_labelled(target: str) -> None:
    line = lineage(target)
    assert [user for stage in line for user in stage.all("USER")] == ["65532:65532"]
    labels = " ".join(label for stage in line for label in stage.all("LABEL"))
    for word in ("title", "description", "licenses", "version", "revision", "base.name"):
        assert f"org.opencontainers.image.{word}=" in labels


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_how_to_ask_for_its_health_in_single_words(target: str) -> None:
    [check] = stages()[target].all("HEALTHCHECK")
    if "trainer" in target:
        assert check == "NONE"
        return
    words = json.loads(check.partition("CMD ")[2])
    [port] = stages()[target].all("EXPOSE")
    assert words == ["/opt/tutelage/bin/python", "/opt/healthcheck.py", port]


@pytest.mark.parametrize("target", TARGETS)
def test_the_variables_of_an_image_are_ones_that_its_service_reads(target: str) -> None:
    names = re.findall(r"(\w+)=", " ".join(text for stage in lineage(target) for text in stage.all("ENV")))
    assert unread(names) == []


def test_everything_installed_is_locked() -> None:
    """By constraints.txt; vLLM, which contradicts it, by its own version; what is built here needs no index."""
    steps = [part for stage in stages().values() for step in stage.all("RUN") for part in step.split("&&")]
    installing = [step for step in steps if "/pip " in step and " install " in step]
    assert len(installing) == 5
    for step in installing:
        assert any(lock in step for lock in ("-c constraints.txt", "vllm==${VLLM_VERSION}", "sbom-tool.txt")), step
    tools = (ROOT / "docker" / "sbom-tool.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line) for line in tools)
    [last] = [line for line in (ROOT / "docker" / "install-wheel").read_text().splitlines() if " install " in line]
    assert "--no-index --no-deps" in last
    assert steps.count("/opt/install-wheel") == len([name for name in stages() if name.endswith("-packages")])


def test_images_for_gpus_refuse_to_start_without_one() -> None:
    """What these variables do is shown in test_refusals.py."""
    said = {target: " ".join(stages()[target].all("ENV")) for target in TARGETS}
    assert "TUTELAGE_TRAINER_REQUIRE_GPU=true" in said["trainer-cuda"]
    assert "TUTELAGE_TEACHER_DEVICE=cuda" in said["teacher-vllm"]
    assert not [target for target in ("trainer", "teacher") if "GPU" in said[target] or "cuda" in said[target]]


def test_no_index_and_no_mirror_is_written_down() -> None:
    for path in (ROOT / "docker").rglob("*"):
        if path.is_file() and "secrets" not in path.parts:
            assert not re.search(r"https?://\S*(pypi|pytorch|mirror|simple)", path.read_text()), path


def test_the_healthcheck_says_why_there_is_none() -> None:
    command = [sys.executable, str(ROOT / "docker" / "healthcheck.py"), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "refused" in done.stderr) == (1, True)
