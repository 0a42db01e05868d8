"""The trackers that a trainer can be told to feed. Each is a library of its own, imported when it is wanted."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from tutelage.trainer.session import Session
from tutelage.trainer.tensorboard import EventFile
from tutelage.trainer.tracking import About, Feed, Open, Trackers
from tutelage_client.errors import InvalidInput

TrackerName = Literal["wandb", "mlflow", "trackio"]
PROJECT = "tutelage"  # where the environment names none
MOST_PARAMS = 100  # that MLflow takes at a time


class Wandb:
    """Weights & Biases. The run there has the id of the run here, so that a later attempt goes on with it."""

    def __init__(self, about: About) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        own = {"id": about.run_id, "name": about.spec["name"], "config": dict(about.spec), "dir": str(about.folder)}
        settings = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(project=project, resume="allow", settings=settings, **own)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """Trackio, which keeps its runs on this machine, or in a Space where its environment says so."""

    def __init__(self, about: About) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(project=project, name=about.run_id, config=dict(about.spec), resume="allow")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """MLflow, at MLFLOW_TRACKING_URI. A later attempt goes on with the run there that is tagged with the run's id."""

    def __init__(self, about: About) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric, Param  # pyright: ignore[reportMissingImports]

        self._client, self._metric = MlflowClient(), Metric
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        tags = {"tutelage.run_id": about.run_id}
        found = self._client.search_runs([experiment], f"tags.`tutelage.run_id` = '{about.run_id}'", max_results=1)
        run = found[0] if found else self._client.create_run(experiment, tags=tags, run_name=about.spec["name"])
        self._id = run.info.run_id
        self._client.update_run(self._id, status="RUNNING")
        params = [Param(key, value) for key, value in flat(about.spec)]
        for begin in range(0, len(params), MOST_PARAMS):
            self._client.log_batch(self._id, params=params[begin : begin + MOST_PARAMS])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        self._client.log_batch(
            self._id, [self._metric(re.sub(r"[^\w./ :-]", "_", k), v, now_ms, step) for k, v in metrics.items()]
        )

    def close(self) -> None:
        self._client.set_terminated(self._id)


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The settings of a spec as dotted paths with their JSON, at most 6,000 characters of it."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from flat(each, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(value)[:6000]


TRACKERS: dict[TrackerName, Open] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


def check(name: TrackerName | None) -> None:
    """
    Raises:
        InvalidInput: its library is not installed.
    """
    if name is not None and find_spec(name) is None:
        remedy = f"install it with: pip install 'tutelage[{name}]'"
        raise InvalidInput(f"--tracker: {name} is not installed here; {remedy}", "tracker")


def following(session: Session, begins_at: int, name: TrackerName | None) -> Trackers:
    """TensorBoard's files, and the tracker of this name."""
    lease = session.lease
    about = About(lease.run_id, lease.epoch, lease.spec, Path(lease.artefacts), begins_at)
    named: dict[str, Open] = {"TensorBoard": EventFile} | ({} if name is None else {name: TRACKERS[name]})
    return Trackers([Feed(each, opening, about) for each, opening in named.items()])
