"""The contract of every tracker with its real library, on this machine alone: it is fed, gone on with, read back.

In an environment of their own (`make e2e`): together they are 200 MB and want other versions than the rest.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tutelage.trainer.trackers import TRACKERS, TrackerName, check
from tutelage.trainer.tracking import About

SPEC = {"name": "walk", "optim": {"lr": 1e-3, "steps": 4}, "teachers": [{"name": "walker"}]}
METRIC = "log_ratio_p90/1024+"  # of the metrics' names the one that is hardest to take
Found = tuple[Any, list[tuple[int, float]]]


def of_mlflow(folder: Path) -> Found:
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    client = MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("tutelage").experiment_id])
    history = client.get_metric_history(run.info.run_id, METRIC.replace("+", "_"))
    return json.loads(run.data.params["optim.lr"]), [(metric.step, metric.value) for metric in history]


def of_trackio(folder: Path) -> Found:
    with sqlite3.connect(folder / "trackio" / "tutelage.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics WHERE run_name = 'run-1'").fetchall()
        ((config,),) = database.execute("SELECT config FROM configs").fetchall()
    return json.loads(config)["optim"]["lr"], [(step, json.loads(metrics)[METRIC]) for step, metrics in rows]


def of_wandb(folder: Path) -> Found:
    import wandb  # pyright: ignore[reportMissingImports]
    from wandb.proto import wandb_internal_pb2 as messages  # pyright: ignore[reportMissingImports]

    wandb.teardown()  # its service has written everything once it is gone
    config, values = {}, []
    for path in sorted((folder / "wandb").glob("offline-run-*/run-run-1.wandb")):
        for data in framed(path.read_bytes()):
            record = messages.Record.FromString(data)
            config |= {each.key: each.value_json for each in record.run.config.update}
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            values += [(record.history.step.num, float(row[METRIC]))] if METRIC in row else []
    return json.loads(config["optim"])["lr"], values


def framed(data: bytes) -> Iterator[bytes]:
    """The records of a W&B file, which are LevelDB's: each below 32 KB and so in one piece, behind 7 bytes."""
    at = 7
    while at + 7 <= len(data):
        size, kind = struct.unpack_from("<HB", data, at + 4)
        if kind == 1:
            yield data[at + 7 : at + 7 + size]
        at += 7 + size


READ: dict[TrackerName, Callable[[Path], Found]] = {"mlflow": of_mlflow, "trackio": of_trackio, "wandb": of_wandb}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that nothing leaves."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("name", TRACKERS)
def test_two_attempts_are_one_run_there_with_its_settings_and_rows(name: TrackerName, alone: Path) -> None:
    check(name)
    for epoch, begins_at, steps in ((1, 0, (1, 2)), (2, 2, (3,))):
        tracker = TRACKERS[name](About("run-1", epoch, SPEC, alone, begins_at))
        for step in steps:
            tracker.log(step, {"loss": 1.0, METRIC: step / 4})
        tracker.close()
    rate, values = READ[name](alone)
    assert rate == 1e-3
    assert sorted(values) == [(1, 0.25), (2, 0.5), (3, 0.75)]
