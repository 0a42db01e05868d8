"""The objects of each overlay, pod by pod. kubectl makes them without a cluster."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from deployed import OVERLAYS, REDIS, containers, named, of_kind, overlay, pods, unread, variables

from tutelage.serving import create_app, serve

# They serve nothing: leases say whether trainers and samplers are well, and of a worker the leader of its group.
WITHOUT_PROBES = {"trainer", "sampler", "teacher-worker"}
PORTS = {"coordinator": 8400, "teacher": 8200, "redis": 6379, "postgres": 5432, "vllm": 8000}
IMPORTS_S = 10
OTHERS = {"vllm": "/health"}  # what another project's server is asked
Objects = list[dict[str, Any]]


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> Objects:
    return overlay(request.param)


def test_the_namespace_admits_restricted_pods_alone(objects: Objects) -> None:
    [namespace] = of_kind(objects, "Namespace")
    for mode in ("enforce", "audit", "warn"):
        assert namespace["metadata"]["labels"][f"pod-security.kubernetes.io/{mode}"] == "restricted"
    assert {each["metadata"].get("namespace", "tutelage") for each in objects} == {"tutelage"}


def test_every_pod_is_restricted(objects: Objects) -> None:
    assert {"coordinator", "trainer", "teacher", "redis"} <= pods(objects).keys()
    for name, pod, container in containers(objects):
        context = pod["securityContext"]
        assert context["runAsNonRoot"], name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume], name
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"], name


def test_no_pod_has_a_token_of_the_cluster_or_variables_of_its_services(objects: Objects) -> None:
    """But a coordinator that launches. A Service called teacher would set TEACHER_PORT and the like in every pod."""
    launches = list(of_kind(objects, "Role"))
    accounts = {each["metadata"]["name"]: each for each in of_kind(objects, "ServiceAccount")}
    for name, template in pods(objects).items():
        assert template["spec"]["automountServiceAccountToken"] is False, name
        tokens = [volume for volume in template["spec"]["volumes"] if "projected" in volume]
        assert bool(tokens) == (name == "coordinator" and bool(launches)), name
        assert template["spec"]["enableServiceLinks"] is False, name
        assert accounts[template["spec"]["serviceAccountName"]]["automountServiceAccountToken"] is False, name


def test_every_container_has_limits_and_its_memory_is_its_own(objects: Objects) -> None:
    for name, _, container in containers(objects):
        asked, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert {"cpu", "memory", "ephemeral-storage"} <= limits.keys(), name
        assert asked["memory"] == limits["memory"], name
        assert asked.get("nvidia.com/gpu") == limits.get("nvidia.com/gpu"), name


def test_probes_ask_what_is_served(objects: Objects) -> None:
    """Liveness never depends on another service, readiness does."""
    for name, _, container in containers(objects):
        probes = {word: container.get(f"{word}Probe", {}) for word in ("startup", "liveness", "readiness")}
        if name in WITHOUT_PROBES:
            assert not any(probes.values()), name
            continue
        assert all(probes.values()), name
        if container["name"] in OTHERS:
            assert {probe["httpGet"]["path"] for probe in probes.values()} == {OTHERS[container["name"]]}
        elif "httpGet" in probes["liveness"]:
            paths = {word: probe["httpGet"]["path"] for word, probe in probes.items()}
            assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}, name
            assert set(paths.values()) <= create_app("any").openapi()["paths"].keys()
        open_ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert open_ports == {next(iter(open_ports)): PORTS[container["name"]]}, name


def test_services_lead_to_ports_of_pods(objects: Objects) -> None:
    templates = pods(objects)
    for service in of_kind(objects, "Service"):
        name = service["metadata"]["name"]
        labels = templates[name]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", "nothing is published"
        ports = {port["name"] for port in templates[name]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
        assert {port["port"] for port in service["spec"]["ports"]} == {PORTS[name]}


def test_variables_are_ones_that_the_services_read(objects: Objects) -> None:
    for _, _, container in containers(objects):
        assert unread(list(variables(objects, container))) == []


def test_addresses_are_those_of_services(objects: Objects) -> None:
    services = {each["metadata"]["name"]: each["spec"]["ports"][0]["port"] for each in of_kind(objects, "Service")}
    for name, _, container in containers(objects):
        for host, port in re.findall(r"(?://|@)([a-z]+):(\d+)", " ".join(variables(objects, container).values())):
            assert services[host] == int(port), f"{name}: {host}"


def test_secrets_are_files_that_their_variables_name(objects: Objects) -> None:
    for name, pod, container in containers(objects):
        volumes = {volume["name"]: volume["secret"] for volume in pod["volumes"] if "secret" in volume}
        folders = {mount["mountPath"]: volumes.get(mount["name"]) for mount in container["volumeMounts"]}
        assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] in volumes), name
        for variable, path in variables(objects, container).items():
            if variable.endswith(("_PASSWORD_FILE", "_KEY_FILE")):
                folder, _, file = path.rpartition("/")
                secret = folders[folder]
                assert secret is not None, variable
                assert file in [item["path"] for item in secret.get("items", [{"path": "password"}])], variable
        assert not [each for each in container.get("env", []) if "valueFrom" in each], name


def test_the_users_of_the_queue_are_those_that_services_ask_as(objects: Objects) -> None:
    users = {line.split()[1] for line in (REDIS / "users.acl").read_text().splitlines()}
    for name, _, container in containers(objects):
        for url in variables(objects, container).values():
            if url.startswith("redis://"):
                assert url.startswith(f"redis://{name}@")
                assert name in users


def test_two_releases_of_the_coordinator_never_overlap_and_trainers_outlast_the_pause(objects: Objects) -> None:
    """Between the last answer of the old pods and the first of the new ones pass all of these, and the imports."""
    deployment = named(objects, "Deployment", "coordinator")
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    pod = pods(objects)["coordinator"]["spec"]
    [container] = pod["containers"]
    waits_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    finishes_s = inspect.signature(serve).parameters["grace_s"].default
    assert waits_s + finishes_s < pod["terminationGracePeriodSeconds"]
    starts_s = container["startupProbe"]["periodSeconds"] + container["readinessProbe"]["periodSeconds"]
    lease_s = float(variables(objects, container)["TUTELAGE_COORDINATOR_LEASE_S"])
    assert waits_s + finishes_s + starts_s + IMPORTS_S < 2 / 3 * lease_s


def test_every_image_is_a_digest(objects: Objects) -> None:
    for name, _, container in containers(objects):
        assert re.search(r"@sha256:[0-9a-f]{64}$", container["image"]), name
