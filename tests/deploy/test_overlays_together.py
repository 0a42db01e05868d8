"""How the objects of an overlay fit each other: networks, drains, scaling, monitoring."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from deployed import K8S, OVERLAYS, containers, named, of_kind, overlay, pods, unallowed, variables

from tutelage.serving import create_app

PORTS = {"coordinator": 8400, "teacher": 8200, "redis": 6379, "postgres": 5432}
Objects = list[dict[str, Any]]


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    return overlay(request.param)


def test_nothing_goes_in_or_out_but_what_is_named(objects: Objects) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    labels = {name: template["metadata"]["labels"] for name, template in pods(objects).items()}
    for name, policy in policies.items():
        chosen = policy["podSelector"].get("matchLabels", {})
        assert any(chosen.items() <= each.items() for each in labels.values()), f"{name} is for no pod"
        for rule in (*policy.get("ingress", []), *policy.get("egress", [])):
            assert rule.get("from") or rule.get("to"), f"{name} opens to everybody"
            assert rule["ports"], f"{name} opens every port"
            blocks = [peer["ipBlock"]["cidr"] for peer in rule.get("to", []) if "ipBlock" in peer]
            assert "0.0.0.0/0" not in blocks


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("trainer", "coordinator"),
        ("trainer", "teacher"),
        ("trainer", "redis"),
        ("teacher", "coordinator"),
        ("teacher", "redis"),
        ("coordinator", "redis"),
    ],
)
def test_who_must_reach_another_may_on_both_sides(objects: Objects, source: str, target: str) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")}
    peer = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": target}}}
    out = [rule for rule in policies[source]["egress"] if peer in rule["to"]]
    assert [port["port"] for rule in out for port in rule["ports"]] == [PORTS[target]]
    peer = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": source}}}
    into = [rule for rule in policies[target]["ingress"] if peer in rule["from"]]
    assert [port["port"] for rule in into for port in rule["ports"]] == [PORTS[target]]


def test_a_sampler_reaches_the_queue_alone_and_reads_what_trainers_publish() -> None:
    objects = overlay("large")
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "NetworkPolicy")}
    redis = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "redis"}}}
    assert policies["sampler"]["egress"] == [{"to": [redis], "ports": [{"protocol": "TCP", "port": PORTS["redis"]}]}]
    assert "ingress" not in policies["sampler"]
    [rule] = policies["redis-of-samplers"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "sampler"}}}]
    [container] = pods(objects)["sampler"]["spec"]["containers"]
    assert container["command"][-1] == "tutelage.sampler"
    assert {"name": "data", "mountPath": "/data", "readOnly": True} in container["volumeMounts"]
    grace = int(variables(objects, container)["TUTELAGE_SAMPLER_GRACE_S"])
    assert pods(objects)["sampler"]["spec"]["terminationGracePeriodSeconds"] > grace


def test_a_drain_never_takes_the_last_one_that_must_stay(objects: Objects) -> None:
    templates = pods(objects)
    workloads = {
        each["metadata"]["name"]: each["spec"]
        for each in of_kind(objects, "Deployment", "StatefulSet", "LeaderWorkerSet")
    }
    budgets = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "PodDisruptionBudget")}
    assert budgets.keys() == {"coordinator", "teacher"}
    for name, budget in budgets.items():
        assert budget["selector"]["matchLabels"].items() <= templates[name]["metadata"]["labels"].items()
        assert budget.get("minAvailable", 0) < workloads[name].get("replicas", 2), f"{name} could never be drained"


def test_a_pod_has_longer_to_stop_than_it_takes(objects: Objects) -> None:
    """A teacher finishes what it has begun, a trainer its step and a checkpoint."""
    templates = pods(objects)
    for name in ("coordinator", "teacher"):
        pod = templates[name]["spec"]
        container = pod["containers"][0]
        grace = int(variables(objects, container).get("TUTELAGE_TEACHER_GRACE_S", 10))
        before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert pod["terminationGracePeriodSeconds"] > before + grace, name
    assert templates["trainer"]["spec"]["terminationGracePeriodSeconds"] >= 300


def test_coordinator_and_trainers_see_one_folder_at_one_path(objects: Objects) -> None:
    mounts = {}
    for name, pod, container in containers(objects):
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in pod["volumes"]
            if "persistentVolumeClaim" in volume
        }
        mounts[name] = {claims[m["name"]]: m["mountPath"] for m in container["volumeMounts"] if m["name"] in claims}
    assert mounts["coordinator"]["data"] == mounts["trainer"]["data"] == "/data"
    model = named(objects, "ConfigMap", "teacher")["data"]["TUTELAGE_TEACHER_MODEL"]
    assert model.startswith(mounts["teacher"]["models"] + "/")


def test_teachers_are_where_coordinator_and_trainers_let_teachers_be(objects: Objects) -> None:
    lists = [
        named(objects, "ConfigMap", name)["data"][f"TUTELAGE_{name.upper()}_TEACHER_ADDRESSES"]
        for name in ("coordinator", "trainer")
    ]
    url = named(objects, "ConfigMap", "teacher")["data"]["TUTELAGE_TEACHER_PUBLIC_URL"]
    assert unallowed(lists, [url]) == []
    assert unallowed(lists, ["http://redis:6379"]) == ["http://redis:6379"] * 2


def test_the_scaler_counts_the_jobs_of_the_teacher_that_it_scales() -> None:
    objects = overlay("production")
    scaled = named(objects, "ScaledObject", "teacher")["spec"]
    teacher = named(objects, "ConfigMap", "teacher")["data"]["TUTELAGE_TEACHER_NAME"]
    assert [trigger["name"] for trigger in scaled["triggers"]] == ["lag", "pending"]
    for trigger in scaled["triggers"]:
        assert trigger["type"] == "redis-streams"
        assert trigger["metadata"]["stream"] == f"tutelage:{{{teacher}}}:jobs"
        assert trigger["metadata"]["consumerGroup"] == "teachers"
    deployment = named(objects, "Deployment", "teacher")
    assert "replicas" not in deployment["spec"], "two would count"


def test_alerts_and_monitors_name_services() -> None:
    objects = overlay("production")
    [rules] = of_kind(objects, "PrometheusRule")
    expressions = [rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]]
    assert expressions
    services = {each["metadata"]["name"]: each for each in of_kind(objects, "Service")}
    for text in expressions:
        assert set(re.findall(r'job="(\w+)"', text)) <= services.keys()
    for monitor in of_kind(objects, "ServiceMonitor"):
        service = services[monitor["metadata"]["name"]]
        wanted = monitor["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= service["metadata"]["labels"].items()
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
            assert endpoint["path"] in create_app("any").openapi()["paths"]


def test_every_component_is_in_an_overlay() -> None:
    used = set()
    for name in OVERLAYS:
        kustomization = yaml.safe_load((K8S / "overlays" / name / "kustomization.yaml").read_text())
        used |= {path.rpartition("/")[2] for path in kustomization["components"]}
    assert used == {path.name for path in (K8S / "components").iterdir()}
