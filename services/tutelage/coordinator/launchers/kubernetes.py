"""Trainers as objects of a cluster: `--launcher kubernetes`. A Job for one node, a TrainJob for several.

How a trainer's pod looks is not said here: it is copied from a suspended CronJob, as `kubectl create job --from` does,
or named as a TrainingRuntime. Kubernetes starts nothing anew by itself: attempts are the coordinator's.
"""

from __future__ import annotations

import signal
from copy import deepcopy
from typing import Any

from tutelage.coordinator.launchers.base import STOPPED, Launch, LaunchFailed, LaunchStatus
from tutelage.coordinator.launchers.cluster import PODS, Cluster, Resource

CRON_JOBS = Resource("apis/batch/v1", "cronjobs")
JOBS = Resource("apis/batch/v1", "jobs")
TRAIN_JOBS = Resource("apis/trainer.kubeflow.org/v1alpha1", "trainjobs")
RUN_LABEL = "tutelage/run"


class KubernetesLauncher:
    """template: name of the CronJob, with `nodes` above 1 of the TrainingRuntime, that says what a trainer's pod is"""

    kind = "kubernetes"

    def __init__(self, cluster: Cluster, template: str, nodes: int = 1) -> None:
        self._cluster, self._template, self._nodes = cluster, template, nodes
        self._objects = JOBS if nodes == 1 else TRAIN_JOBS
        self._pods_of = "batch.kubernetes.io/job-name" if nodes == 1 else "jobset.sigs.k8s.io/jobset-name"

    async def launch(self, launch: Launch) -> bool:
        body = await self._job(launch) if self._nodes == 1 else train_job(launch, self._template, self._nodes)
        return await self._cluster.create(self._objects, body)

    async def _job(self, launch: Launch) -> dict[str, Any]:
        template = await self._cluster.get(CRON_JOBS, self._template)
        if template is None:
            raise LaunchFailed(
                f"there is no CronJob {self._template!r} to copy a trainer's Job from; apply k8s/components/trainjob, "
                "or name yours with --launch-template"
            )
        given = deepcopy(template["spec"]["jobTemplate"])
        trainer = given["spec"]["template"]["spec"]["containers"][0]
        trainer["env"] = [*trainer.get("env", []), *_variables(launch)]
        labels = given.get("metadata", {}).get("labels", {}) | {RUN_LABEL: launch.run_id}
        metadata = {"name": launch.name, "labels": labels}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": given["spec"]}

    async def status(self, launch: Launch) -> LaunchStatus:
        found = await self._cluster.get(self._objects, launch.name)
        if found is None:
            return LaunchStatus("absent")
        true = {
            each["type"]: each for each in found.get("status", {}).get("conditions", []) if each["status"] == "True"
        }
        if end := true.get("Failed") or true.get("Complete"):
            return LaunchStatus("ended", _first_code(await self._pods(launch)), end.get("reason"))
        pods = await self._pods(launch)
        if found["spec"].get("suspend") and not any(_lives(pod) for pod in pods):
            return LaunchStatus("ended", STOPPED, "suspended")
        is_running = any(pod.get("status", {}).get("phase") == "Running" for pod in pods)
        return LaunchStatus("running" if is_running else "pending")

    async def signal(self, launch: Launch, number: signal.Signals) -> None:
        """SIGTERM suspends it, by which its pods are told to go; SIGKILL takes them away as well. The object stays."""
        await self._cluster.patch(self._objects, launch.name, {"spec": {"suspend": True}})
        if number == signal.SIGKILL:
            for pod in await self._pods(launch):
                if _lives(pod):
                    await self._cluster.delete(PODS, pod["metadata"]["name"])

    async def logs(self, launch: Launch, lines: int) -> str | None:
        pods = [pod["metadata"]["name"] for pod in await self._pods(launch)]
        if not pods:
            return None
        texts = [await self._cluster.log(pod, lines) for pod in pods]
        if len(pods) == 1:
            return texts[0]
        return "".join(f"==> {pod} <==\n{text}\n" for pod, text in zip(pods, texts, strict=True))

    async def close(self) -> None:
        await self._cluster.close()

    async def _pods(self, launch: Launch) -> list[dict[str, Any]]:
        return await self._cluster.listed(PODS, f"{self._pods_of}={launch.name}")


def train_job(launch: Launch, runtime: str, nodes: int) -> dict[str, Any]:
    """For Kubeflow Trainer, which makes a JobSet of it with the pods of the runtime."""
    reference = {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": runtime}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": launch.name, "labels": {RUN_LABEL: launch.run_id}},
        "spec": {"runtimeRef": reference, "trainer": {"numNodes": nodes, "env": _variables(launch)}},
    }


def _variables(launch: Launch) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in launch.variables.items()]


def _lives(pod: dict[str, Any]) -> bool:
    return pod.get("status", {}).get("phase", "Pending") in ("Pending", "Running", "Unknown")


def _first_code(pods: list[dict[str, Any]]) -> int | None:
    """Of the containers that failed the first, or 0; None where no pod is left that would say."""
    ends = [
        state["state"]["terminated"]
        for pod in pods
        for state in pod.get("status", {}).get("containerStatuses", [])
        if "terminated" in state.get("state", {})
    ]
    failed = sorted((end for end in ends if end["exitCode"] != 0), key=lambda end: end.get("finishedAt", ""))
    if failed:
        return failed[0]["exitCode"]
    return 0 if ends else None
