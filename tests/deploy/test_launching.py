"""What the coordinator needs in a cluster to launch trainers: templates of their pods, an account, a role, a way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from deployed import named, of_kind, overlay, pods, unread, variables

from tutelage.coordinator.launchers import Launch
from tutelage.coordinator.launchers.cluster import Resource
from tutelage.coordinator.launchers.kubernetes import CRON_JOBS, JOBS, PODS, TRAIN_JOBS, KubernetesLauncher
from tutelage.coordinator.settings import Settings

Objects = list[dict[str, Any]]
LAUNCH = Launch("run-0123456789abcdef", 3)


@pytest.fixture
def objects() -> Objects:
    return overlay("large")


def launched_pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    job = named(objects, "CronJob", "trainer")["spec"]["jobTemplate"]["spec"]
    [node] = named(objects, "TrainingRuntime", "trainer")["spec"]["template"]["spec"]["replicatedJobs"]
    for kind, each in (("Job", job), ("TrainJob", node["template"]["spec"])):
        assert each["backoffLimit"] == 0, "attempts are the coordinator's"
        yield kind, each["template"]


def test_a_launched_pod_is_that_of_a_trainer_which_waits(objects: Objects) -> None:
    """So whatever the tests ask of that one holds of these: its user, its limits, its secrets, its image."""
    waiting = pods(objects)["trainer"]
    for kind, template in launched_pods(objects):
        spec = dict(template["spec"])
        assert spec.pop("restartPolicy") == "Never", kind
        if kind == "TrainJob":  # Kubeflow Trainer gives the container of this name its variables
            [container] = spec["containers"]
            assert container["command"][-4:] == ["-m", "torch.distributed.run", "-m", "tutelage.trainer"]
            container = {name: value for name, value in container.items() if name != "command"} | {"name": "trainer"}
            assert spec["containers"][0]["name"] == "node"
            spec["containers"] = [container]
        assert spec == waiting["spec"], kind
        assert waiting["metadata"]["labels"].items() <= template["metadata"]["labels"].items(), kind


def test_no_trainer_waits_and_none_starts_by_itself(objects: Objects) -> None:
    assert named(objects, "Deployment", "trainer")["spec"]["replicas"] == 0
    assert named(objects, "CronJob", "trainer")["spec"]["suspend"] is True
    assert named(objects, "TrainingRuntime", "trainer")["spec"]["template"]["spec"]["failurePolicy"]["maxRestarts"] == 0


def test_the_coordinator_has_the_account_that_its_launcher_reads(objects: Objects) -> None:
    template = pods(objects)["coordinator"]["spec"]
    [container] = template["containers"]
    told = variables(objects, container)
    assert unread(list(told)) == []
    assert told["TUTELAGE_COORDINATOR_LAUNCHER"] == "kubernetes"
    [volume] = [each for each in template["volumes"] if "projected" in each]
    [mount] = [each for each in container["volumeMounts"] if each["name"] == volume["name"]]
    assert (mount["mountPath"], mount["readOnly"]) == (str(Settings().kubernetes_account), True)
    token, ca, namespace = volume["projected"]["sources"]
    files = [token["serviceAccountToken"]["path"], ca["configMap"]["items"][0]["path"]]
    assert [*files, namespace["downwardAPI"]["items"][0]["path"]] == ["token", "ca.crt", "namespace"]


class Asked:
    """In place of a cluster: says what a launcher asks of one."""

    def __init__(self, template: dict[str, Any]) -> None:
        self._template = template
        self.asked: set[tuple[str, str, str]] = set()

    def __getattr__(self, verb: str) -> Any:
        async def ask(kind: Resource | str, *_: Any) -> Any:
            resource = "pods/log" if isinstance(kind, str) else kind.plural
            group = "" if isinstance(kind, str) else kind.api.removeprefix("api/v1").removeprefix("apis/").split("/")[0]
            self.asked.add((group, resource, {"listed": "list", "log": "get"}.get(verb, verb)))
            answers: dict[str, Any] = {"create": True, "log": "text", "listed": [{"metadata": {"name": "pod"}}]}
            is_template = isinstance(kind, Resource) and kind == CRON_JOBS
            return self._template if is_template else answers.get(verb, {"spec": {}})

        return ask


def test_the_role_is_what_the_launcher_does_and_no_more(objects: Objects) -> None:
    cluster: Any = Asked(named(objects, "CronJob", "trainer"))

    async def everything() -> None:
        for nodes in (1, 2):
            launcher = KubernetesLauncher(cluster, "trainer", nodes)
            await launcher.launch(LAUNCH)
            await launcher.status(LAUNCH)
            await launcher.logs(LAUNCH, 10)
            for number in (15, 9):
                await launcher.signal(LAUNCH, number)  # type: ignore[arg-type]

    asyncio.run(everything())
    [role] = of_kind(objects, "Role")
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == cluster.asked
    assert {resource for _, resource, _ in allowed} == {
        *(each.plural for each in (CRON_JOBS, JOBS, TRAIN_JOBS, PODS)),
        "pods/log",
    }
    [binding] = of_kind(objects, "RoleBinding")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "coordinator", "namespace": "tutelage"}]
    assert list(of_kind(objects, "ClusterRole", "ClusterRoleBinding")) == []


def test_a_teacher_wider_than_a_node_goes_and_comes_as_one(objects: Objects) -> None:
    group = named(objects, "LeaderWorkerSet", "teacher")["spec"]["leaderWorkerTemplate"]
    assert group["restartPolicy"] == "RecreateGroupOnPodRestart"
    teacher, leader = group["leaderTemplate"]["spec"]["containers"]
    [worker] = group["workerTemplate"]["spec"]["containers"]
    assert leader["args"] == worker["args"], "one vLLM, whose nodes are told the same"
    sizes = dict(arg.removeprefix("--").split("=") for arg in leader["args"] if "=" in arg)
    assert int(sizes["pipeline-parallel-size"]) == group["size"]
    assert sizes["tensor-parallel-size"] == leader["resources"]["limits"]["nvidia.com/gpu"]
    told = variables(objects, teacher)
    assert told["TUTELAGE_TEACHER_UPSTREAM"] == f"http://127.0.0.1:{leader['ports'][0]['containerPort']}"
    assert told["TUTELAGE_TEACHER_MODEL"] == leader["command"][2]
    grace = group["leaderTemplate"]["spec"]["terminationGracePeriodSeconds"]
    drains = int(told["TUTELAGE_TEACHER_GRACE_S"]) + teacher["lifecycle"]["preStop"]["sleep"]["seconds"]
    vllm_waits = leader["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert drains < vllm_waits, "vLLM serves until the teacher has finished"
    assert vllm_waits + int(sizes["shutdown-timeout"]) < grace
    assert {each["metadata"]["name"] for each in of_kind(objects, "Deployment")} == {
        "coordinator",
        "sampler",
        "trainer",
    }
