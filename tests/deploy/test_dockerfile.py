"""The Dockerfile: what each image is made of, and what stays out of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
from deployed import ROOT, WITH_COMPILER, lineage, stages, unread
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
        installing = [step for step in stage.all("RUN") if re.search(r"pip|apt|gcc|--mount", step)]
        assert len(installing) == (stage.name in WITH_COMPILER), stage.name
        assert not [name for name in stage.all("ARG") if name.startswith("PIP")], stage.name
    assert [step for stage in line for step in stage.all("COPY") if step.startswith("--from=")] == [
        f"--from={SOURCES.get(target, 'model-packages')} /opt/tutelage /opt/tutelage"
    ]


def test_the_image_with_a_compiler_has_what_triton_compiles_with_and_no_more() -> None:
    [installing] = stages()["teacher-vllm"].all("RUN")
    assert re.findall(r"install --yes --no-install-recommends ([^&]+?) &&", installing) == ["gcc libc6-dev"]
    assert installing.endswith("rm -rf /var/lib/apt/lists/*")
    assert "VLLM_USE_FLASHINFER_SAMPLER=0" in stages()["teacher-vllm"].all("ENV"), "nothing there compiles CUDA"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_numbered_user_and_is_labelled(target: str) -> None:
    line = lineage(target)
    users = [user for stage in reversed(line) for user in stage.all("USER")]
    assert users == (["65532:65532", "0", "65532:65532"] if target in WITH_COMPILER else ["65532:65532"])
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
    """By constraints.txt, or by the lock of vLLM, which contradicts it; what is built here needs no index."""
    steps = [part for stage in stages().values() for step in stage.all("RUN") for part in step.split("&&")]
    installing = [step for step in steps if "/pip " in step and " install " in step]
    assert len(installing) == 5
    for step in installing:
        assert any(lock in step for lock in ("-c constraints.txt", "-c vllm-constraints.txt", "sbom-tool.txt")), step
    tools = (ROOT / "docker" / "sbom-tool.txt").read_text().splitlines()
    assert all(re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line) for line in tools)
    [last] = [line for line in (ROOT / "docker" / "install-wheel").read_text().splitlines() if " install " in line]
    assert "--no-index --no-deps" in last
    assert steps.count("/opt/install-wheel") == len([name for name in stages() if name.endswith("-packages")])


def test_the_lock_of_vllm_holds_all_that_its_image_asks_for_with_cuda() -> None:
    text = (ROOT / "docker" / "vllm-constraints.txt").read_text()
    locked = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
    }
    assert len(locked) == len([line for line in text.splitlines() if not line.startswith("#")])
    for requirement in asked_by_extras({"vllm", "otel"}):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement
    assert {"triton", "nvidia-cuda-runtime"} <= locked.keys()


def asked_by_extras(extras: set[str]) -> list[Requirement]:
    """What the project asks for with these extras, and with those that they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = [Requirement(each) for each in project["dependencies"]]
    for extra in extras:
        for requirement in map(Requirement, project["optional-dependencies"][extra]):
            found += asked_by_extras(requirement.extras) if requirement.name == "tutelage" else [requirement]
    return found


def test_images_for_gpus_refuse_to_start_without_one() -> None:
    """What these variables do is shown in test_refusals.py."""
    said = {target: " ".join(stages()[target].all("ENV")) for target in TARGETS}
    assert "TUTELAGE_TRAINER_REQUIRE_GPU=true" in said["trainer-cuda"]
    assert "TUTELAGE_TEACHER_DEVICE=cuda" in said["teacher-vllm"]
    assert not [target for target in ("trainer", "teacher") if "GPU" in said[target] or "cuda" in said[target]]


def test_what_is_copied_is_in_the_context() -> None:
    """Which leaves out what no image is made of."""
    lines = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    context = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copies = [step for stage in stages().values() for step in stage.all("COPY") if "--from=" not in step]
    sources = {word for step in copies for word in step.split()[:-1] if not word.startswith("--")}
    assert sources == context
    assert not [path for path in context if not (ROOT / path).exists()]


def test_no_index_and_no_mirror_is_written_down() -> None:
    for path in (ROOT / "docker").rglob("*"):
        if path.is_file() and "secrets" not in path.parts:
            assert not re.search(r"https?://\S*(pypi|pytorch|mirror|simple)", path.read_text()), path


def test_the_healthcheck_says_why_there_is_none() -> None:
    command = [sys.executable, str(ROOT / "docker" / "healthcheck.py"), str(free_port())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "refused" in done.stderr) == (1, True)
