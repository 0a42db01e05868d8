"""What is deployed, as data: the stages of the Dockerfile, the compose file, the objects of each overlay."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings

from tutelage.addresses import Allowed, NotAllowed, door
from tutelage.coordinator.exposition import FLEET, RUNS
from tutelage.coordinator.settings import Settings as CoordinatorSettings
from tutelage.sampler.settings import Settings as SamplerSettings
from tutelage.teacher.settings import Settings as TeacherSettings
from tutelage.telemetry import CoordinatorMetrics, HttpMetrics, TeacherMetrics
from tutelage.trainer.settings import Settings as TrainerSettings

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
REDIS = K8S / "base" / "redis"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
SETTINGS: dict[str, type[BaseSettings]] = {
    "TUTELAGE_COORDINATOR_": CoordinatorSettings,
    "TUTELAGE_TEACHER_": TeacherSettings,
    "TUTELAGE_TRAINER_": TrainerSettings,
    "TUTELAGE_SAMPLER_": SamplerSettings,
}
WITH_COMPILER = {"teacher-vllm"}  # Triton compiles what launches its kernels where it runs
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")


class Stage(NamedTuple):
    """base: what it starts from, a stage or an image; steps: instruction and argument, on one line each"""

    name: str
    base: str
    steps: list[tuple[str, str]]

    def all(self, word: str) -> list[str]:
        return [argument for instruction, argument in self.steps if instruction == word]


def stages() -> dict[str, Stage]:
    """The stages of the Dockerfile by name, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)
    found: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        word, _, argument = line.partition(" ")
        if word == "FROM":
            base, _, name = argument.partition(" AS ")
            found[name] = Stage(name, base, [])
        elif word and found:
            found[list(found)[-1]].steps.append((word, argument.strip()))
    return found


def lineage(name: str) -> list[Stage]:
    """A stage and those that it is built on, itself first."""
    known, found = stages(), []
    while name in known:
        found.append(known[name])
        name = known[name].base
    return found


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())


@cache
def overlay(name: str) -> list[dict[str, Any]]:
    """Every object of an overlay, as kubectl makes it."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed here; it makes the objects that are looked at")
    command = [kubectl, "kustomize", str(K8S / "overlays" / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def unallowed(lists: Iterable[str], teachers: Iterable[str]) -> list[str]:
    """Teachers' addresses that one of these lists does not hold, whatever address their names have."""
    allowed = [Allowed(each.split(",")) for each in lists]
    found: list[str] = []
    for url in teachers:
        for each in allowed:
            try:
                each.check(door(url), [ip_address("10.244.0.7")])
            except NotAllowed:
                found.append(url)
    return found


def of_kind(objects: list[dict[str, Any]], *kinds: str) -> Iterator[dict[str, Any]]:
    return (each for each in objects if each["kind"] in kinds)


def named(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name; the name of a ConfigMap ends in the digest of its content."""
    [found] = [
        each for each in of_kind(objects, kind) if re.fullmatch(rf"{name}(-[a-z0-9]{{10}})?", each["metadata"]["name"])
    ]
    return found


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The pod template of every workload by the workload's name; the workers of a group are a workload of their own."""
    found = {each["metadata"]["name"]: each["spec"]["template"] for each in of_kind(objects, *WORKLOADS)}
    for each in of_kind(objects, "LeaderWorkerSet"):
        group, name = each["spec"]["leaderWorkerTemplate"], each["metadata"]["name"]
        found |= {name: group["leaderTemplate"], f"{name}-worker": group["workerTemplate"]}
    return found


def unread(names: list[str]) -> list[str]:
    """Those of our environment variables that no service reads."""
    found = []
    for name in names:
        prefix = next((each for each in SETTINGS if name.startswith(each)), None)
        if name.startswith("TUTELAGE_") and (
            prefix is None or name.removeprefix(prefix).lower() not in SETTINGS[prefix].model_fields
        ):
            found.append(name)
    return found


def containers(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Workload, pod and container, of every container."""
    for name, template in pods(objects).items():
        for container in (*template["spec"].get("initContainers", []), *template["spec"]["containers"]):
            yield name, template["spec"], container


def variables(objects: list[dict[str, Any]], container: dict[str, Any]) -> dict[str, str]:
    """Of a container, those of its ConfigMaps included."""
    found = {each["name"]: each["value"] for each in container.get("env", [])}
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    for source in container.get("envFrom", []):
        ref = source["configMapRef"]
        found |= maps.get(ref["name"], {}) if ref.get("optional") else maps[ref["name"]]
    return found


def measured() -> dict[str, set[str]]:
    """The labels of every series that a service has, those of histograms included."""
    found = {name: set(family.labels) for name, family in (RUNS | FLEET).items()}
    registry = CollectorRegistry()
    for metrics in (HttpMetrics.of(registry), TeacherMetrics.of(registry), CoordinatorMetrics.of(registry)):
        for field in fields(metrics):
            collector = getattr(metrics, field.name)
            [described] = collector.describe()
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(described.type, ("",))
            for suffix in suffixes:  # the library has no public way to ask for labels
                found[described.name + suffix] = {*collector._labelnames, *(["le"] if suffix == "_bucket" else [])}
    return found
