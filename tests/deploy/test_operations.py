"""The guide for operators: its kubectl commands against a mocked API server, its alerts and metrics as they are.

What of it needs no cluster is run on a stack, see tests/stack/test_docs.py.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kmock as mocks
import pytest
import yaml
from deployed import ROOT, measured, of_kind, overlay
from pages import blocks

PAGE = ROOT / "docs" / "operations.md"
DEPLOYMENTS = mocks.resource("apps/v1/deployments")
SECRETS = mocks.resource("v1/secrets")


def serve(api: Any, objects: list[dict[str, Any]]) -> None:
    """Let the API server have these objects, and tell clients of their kinds."""
    core: list[dict[str, Any]] = []
    for each in objects:
        group, _, version = each["apiVersion"].rpartition("/")
        kind = each["kind"]
        plural = kind.lower().removesuffix("y") + "ies" if kind.endswith("y") else kind.lower() + "s"
        resource = mocks.resource(group=group, version=version, plural=plural)
        verbs = {"get", "list", "create", "patch", "update", "delete"}
        is_namespaced = kind != "Namespace"
        info = mocks.ResourceInfo(kind=kind, singular=kind.lower(), namespaced=is_namespaced, verbs=verbs)
        api.resources[resource] = info
        if not group:
            core.append({"name": plural, "kind": kind, "namespaced": is_namespaced, "verbs": sorted(verbs)})
        if is_namespaced:
            api.objects[resource, "tutelage", each["metadata"]["name"]] = each
        else:  # the mock takes its path for a list of what is in it
            _ = api[f"get /api/v1/namespaces/{each['metadata']['name']}"] << each
            _ = api[f"patch /api/v1/namespaces/{each['metadata']['name']}"] << each
    # the mock calls the group of these "/v1", which kubectl does not take
    known = {"apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "v1", "resources": core}
    _ = api["get /api/v1"] << known


def scalable(api: Any, name: str) -> None:
    """The subresource `scale`, which the mock does not have by itself; what is asked for goes to the object."""
    api.resources[DEPLOYMENTS].subresources.add("scale")
    path = f"/apis/apps/v1/namespaces/tutelage/deployments/{name}/scale"

    def scale(request: Any) -> dict[str, Any]:
        asked = request.data["spec"]["replicas"] if request.data else 1
        if request.data:
            api.objects[DEPLOYMENTS, "tutelage", name].patch({"spec": {"replicas": asked}})
        metadata = {"name": name, "namespace": "tutelage", "resourceVersion": "1"}
        return {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": asked}}

    for verb in ("get", "put", "patch"):
        _ = api[f"{verb} {path}"] << scale


def rolled_out(api: Any, name: str) -> None:
    """What the controller says of it once its pods are there, in a list, which kubectl asks for to wait."""
    there = {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2}

    def listed(_: Any) -> dict[str, Any]:
        found = api.objects[DEPLOYMENTS, "tutelage", name].raw
        metadata = found["metadata"] | {"generation": 1}
        return {
            "apiVersion": "apps/v1",
            "kind": "DeploymentList",
            "metadata": {"resourceVersion": "1"},
            "items": [found | {"metadata": metadata, "status": there}],
        }

    _ = api["get /apis/apps/v1/namespaces/tutelage/deployments"] << listed


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for folder in ("docker", "k8s"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("secrets"))
    return tmp_path


async def run(script: str, clone: Path, api: Any) -> str:
    """Its output. A mocked server has no schemas to validate objects with, which the test of overlays does."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "it",
        "clusters": [{"name": "it", "cluster": {"server": str(api.url)}}],
        "contexts": [{"name": "it", "context": {"cluster": "it", "user": ""}}],
    }
    (clone / "config").write_text(yaml.safe_dump(config))
    script = script.replace("kubectl apply", "kubectl apply --validate=false")
    env = os.environ | {"KUBECONFIG": str(clone / "config"), "HOME": str(clone)}
    shell = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script, cwd=clone, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output = (await asyncio.wait_for(shell.communicate(), 120))[0].decode()
    assert shell.returncode == 0, output
    return output


async def test_the_commands_for_a_cluster_do_what_the_guide_says(kmock: Any, clone: Path) -> None:
    objects = overlay("production")
    old = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tutelage-redis"}, "data": {"teacher": "b2xk"}}
    serve(kmock, [*objects, old])
    for name in ("teacher", "trainer"):
        scalable(kmock, name)
    rolled_out(kmock, "coordinator")
    scripts = blocks(PAGE, "shell")
    assert sum(script.count("kubectl ") for script in scripts) == 8
    said = "".join([await run(script, clone, kmock) for script in scripts])

    now = {name: kmock.objects[DEPLOYMENTS, "tutelage", name] for name in ("coordinator", "teacher", "trainer")}
    assert 'deployment "coordinator" successfully rolled out' in said
    assert now["coordinator"]["spec"]["replicas"] == 2, "as the overlay says"
    assert (now["trainer"]["spec"]["replicas"], now["teacher"]["spec"]["replicas"]) == (4, 2)
    secret = kmock.objects[SECRETS, "tutelage", "tutelage-redis"]["data"]
    for user in ("coordinator", "trainer", "teacher", "scaler"):
        assert base64.b64decode(secret[user]) == (clone / "docker" / "secrets" / f"redis-{user}").read_bytes()
    assert "restartedAt" in str(now["teacher"]["spec"]["template"]["metadata"]["annotations"])
    assert "restartedAt" not in str(now["trainer"]["spec"]["template"]["metadata"])
    for each in objects:
        assert f"/{each['metadata']['name']} " in said, "applied"


def test_every_alert_has_a_section_and_every_section_an_alert() -> None:
    [rules] = of_kind(overlay("production"), "PrometheusRule")
    alerts = [rule["alert"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    _, _, answers = PAGE.read_text().partition("## When an alert fires")
    assert re.findall(r"^### (\w+)$", answers, re.MULTILINE) == alerts


def test_metrics_that_the_guide_reads_are_measured() -> None:
    asked = set(re.findall(r"\btutelage_\w+", PAGE.read_text()))
    assert len(asked) > 4
    assert asked <= measured().keys()


def test_a_block_that_is_not_run_says_so() -> None:
    for before in re.split(r"^```console\n", PAGE.read_text(), flags=re.MULTILINE)[:-1]:
        assert "*not run here*" in before[-200:]
