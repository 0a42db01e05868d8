"""`tutelage runs fork`: the settings on its command line, and the run that comes of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage_client.cli.fork import settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import CheckpointCommit
from tutelage_client.worker import WorkerClient

Cli = Callable[..., subprocess.CompletedProcess[str]]


def test_settings_are_put_at_their_paths() -> None:
    given = ["optim.lr=1e-5", "optim.steps=50", "name=again", "teachers.0.tags=['a', 'b']", "budget.teacher_tokens="]
    assert settings(given) == {
        "optim": {"lr": 1e-5, "steps": 50},
        "name": "again",
        "teachers": {"0": {"tags": ["a", "b"]}},
        "budget": {"teacher_tokens": None},
    }
    assert settings(["data.train=/data/a=b.jsonl"]) == {"data": {"train": "/data/a=b.jsonl"}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["optim.lr"], "'optim.lr' is not KEY=VALUE"),
        (["=1"], "'=1' is not KEY=VALUE"),
        (["optim..lr=1"], "is not KEY=VALUE"),
        (["optim=1", "optim.lr=1"], "optim.lr is inside of optim, which has a value of its own"),
        (["seed=1", "seed=2"], "seed is there more than once"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(given: list[str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        settings(given)


async def checkpointed(url: str, spec: dict[str, Any]) -> str:
    """A run with a committed checkpoint of step 3."""
    async with CoordinatorClient(url) as client, WorkerClient(url) as worker:
        run = await client.submit(spec)
        lease = await worker.lease_run(run.id, "trainer")
        folder = Path(lease.artefacts) / "checkpoints" / "step-00000003-e1"
        folder.mkdir(parents=True)
        manifest = json.dumps({"files": {}})
        (folder / "manifest.json").write_text(manifest)
        commit = CheckpointCommit(
            epoch=1,
            step=3,
            path=str(folder),
            weights_sha256="0" * 64,
            manifest_sha256=hashlib.sha256(manifest.encode()).hexdigest(),
        )
        await worker.commit_checkpoint(run.id, commit)
    return run.id


async def test_a_fork_is_queued_and_shown(cli: Cli, coordinator_url: str) -> None:
    spec = {
        "name": "walk",
        "student": {"model": "/models/student"},
        "data": {"train": "/data/prompts.jsonl"},
        "objective": {"kind": "constant_penalty"},
    }
    parent = await checkpointed(coordinator_url, spec)
    fork_id, url = cli("runs", "fork", parent, "--set", "optim.lr=1e-5").stdout.split()
    assert url == f"{coordinator_url}/v1/runs/{fork_id}"
    assert f"{parent} at step 3, changed: optim.lr" in " ".join(cli("runs", "show", fork_id).stdout.split())
    run = json.loads(cli("runs", "fork", parent, "--step", "3", "--set", "name=other", "--json").stdout)
    assert (run["name"], run["forked_from"]["changed"]) == ("other", ["name"])
    refused = cli("runs", "fork", parent, "--step", "4")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no committed checkpoint of step 4" in refused.stderr
    refused = cli("runs", "fork", parent, "--set", "student.dtype=bfloat16")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "student.dtype: a fork keeps the student" in refused.stderr
