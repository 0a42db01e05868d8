"""Disks that are full or broken, each a small file system of its own: the run goes on, waits, and goes on by itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import httpx2
import pytest
import redis
from cluster import Cluster, ended
from rooted import filled, small_disk
from tiny_run import tiny_spec

from tutelage.trainer import checkpoint, saving
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.loading import load_student
from tutelage_client.history import no_progress
from tutelage_client.spec import parse_spec
from tutelage_client.wire import EventView

in_loop = pytest.mark.asyncio(loop_scope="session")
WITHIN_S = 30.0


def refusals(events: list[EventView]) -> list[EventView]:
    return [event for event in events if event.type == "checkpoint" and event.level == "error"]


@in_loop
async def test_a_full_disk_costs_checkpoints_alone_and_the_run_waits_only_at_its_limit(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 20}, checkpoint={"every": 2, "may_fail": 1})
    artefacts = cluster.folder / "coordinator" / "artefacts"
    trainer = cluster.trainer(run_id, "full")
    await trainer.start()
    await cluster.until(run_id, lambda run: run.step >= 4 and run.step % 2 == 1)  # between two checkpoints
    with filled(artefacts):
        stale = await cluster.until(run_id, lambda run: not run.conditions.get("checkpoint_fresh", True))
        assert stale.status == "running"
        async with cluster.client() as client:
            newest = (await client.checkpoints(run_id))[-1]
        waiting = await cluster.until(run_id, lambda run: run.step >= newest.step + 4)
        left = sorted(path.name for path in Path(newest.path).parent.iterdir())
        assert left[-1] == Path(newest.path).name
        assert not [name for name in left if name.startswith(".")]
        assert checkpoint.verify(Path(newest.path), newest.manifest_sha256)["step"] == newest.step
    mended_s = time.time()
    assert await ended(trainer) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert waiting.step == newest.step + 4, "two checkpoints late it waits"
    assert found.run.epoch == 1
    (refusal,) = refusals(list(found.events))
    assert "No space left on device: it needs" in refusal.message
    assert f"the checkpoint of step {newest.step} stays the newest" in refusal.message
    assert found.run.conditions["checkpoint_fresh"]
    assert no_progress(found.events, mended_s, WITHIN_S) == []


def test_however_little_room_is_left_a_checkpoint_is_whole_or_leaves_nothing(tmp_path: Path) -> None:
    """Of tensors, tokenizer, text and manifest each has its turn to find the disk full."""
    spec = parse_spec(tiny_spec(tmp_path))
    student = load_student(spec.student.model, spec)
    reasons: set[str] = set()
    with small_disk(tmp_path / "disk", "1m") as disk:
        for leaving in range(0, 200 * 1024, 4096):
            with filled(disk, leaving):
                try:
                    view = checkpoint.save(disk / "c", 1, 1, partial(saving.write, student), {"step": 1})
                except checkpoint.NotSaved as error:
                    reasons.add(str(error).partition("cannot be written: ")[2].split(":")[0])
                    assert list((disk / "c").glob("*")) == list((disk / "c").glob(".*")) == []
                    continue
            assert checkpoint.verify(Path(view.path), view.manifest_sha256) == {"step": 1}
            break
        else:
            pytest.fail("never enough room")
    assert len(reasons) > 1, "the libraries say it in different ways"


@in_loop
async def test_a_failed_fsync_costs_that_checkpoint_and_no_file_of_it_is_used_again(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 8}, checkpoint={"every": 4})
    root = cluster.folder / "coordinator" / "artefacts" / run_id / "checkpoints"
    broken = root / ".step-00000004-e1.tmp" / "model" / "model.safetensors"
    calls = cluster.folder / "fsync"
    traced = ["strace", "-f", "-qq", "-o", str(calls), "-P", str(broken)]
    failing = ["-e", "trace=fsync", "-e", "inject=fsync:error=EIO"]
    trainer = cluster.direct_trainer(run_id, "127.0.0.1", [*traced, *failing])
    await trainer.start()
    assert await ended(trainer) == ExitCode.DONE
    found = await cluster.sound(run_id)
    (refusal,) = refusals(list(found.events))
    assert "the checkpoint of step 4 cannot be written: [Errno 5] Input/output error" in refusal.message
    assert [each.step for each in found.checkpoints] == [5, 8]
    assert found.run.epoch == 1
    assert calls.read_text().count("(INJECTED)") == 1


SAVING = """
import sys
from pathlib import Path
from tutelage.trainer.checkpoint import save

def write(folder):
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")

print(save(Path(sys.argv[1]), 1, int(sys.argv[2]), write, {"step": int(sys.argv[2])}).model_dump_json())
"""


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_killed_at_any_call_that_writes_a_checkpoint_the_former_one_is_whole(call: str, tmp_path: Path) -> None:
    """The n-th fsync or rename of the process is its last, for every n that there is."""
    root = tmp_path / "checkpoints"
    command = [sys.executable, "-c", SAVING, str(root)]
    first = subprocess.run([*command, "1"], capture_output=True, text=True, check=True, timeout=60)
    committed = checkpoint.CheckpointView.model_validate_json(first.stdout)
    killed = 0
    while _killed_at(call, killed + 1, [*command, "2"]):
        killed += 1
        found, wrong = checkpoint.newest_whole([committed])
        assert found is not None and found.state == {"step": 1} and wrong == []
        for renamed in root.glob("step-00000002*"):
            assert checkpoint.verify(renamed) == {"step": 2}
        checkpoint.retain(root, 1, committed)
    assert killed >= {"fsync": 7, "rename": 1}[call]
    assert [checkpoint.verify(path) for path in root.glob("step-00000002-e1")] == [{"step": 2}]


def _killed_at(call: str, nth: int, command: list[str]) -> bool:
    traced = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    killing = ["-e", f"inject={call}:signal=SIGKILL:when={nth}"]
    return subprocess.run([*traced, *killing, *command], capture_output=True, check=False, timeout=60).returncode != 0


@in_loop
async def test_a_full_disk_of_the_queue_is_waited_for(cluster: Cluster) -> None:
    run_id = await cluster.submit(optim={"steps": 14})
    training = asyncio.create_task(cluster.train(run_id))
    await cluster.until(run_id, lambda run: run.step >= 2)
    with filled(cluster.folder / "queue"):
        async with asyncio.timeout(WITHIN_S):
            while cluster.raw.info("persistence")["aof_last_write_status"] == "ok":
                await asyncio.sleep(0.05)
        with pytest.raises(redis.ResponseError, match=r"MISCONF.*No space left on device"):
            cluster.raw.set("any", "value")
        assert not training.done()
    mended_s = time.time()
    assert await training == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert found.run.epoch == 1
    assert no_progress(found.events, mended_s, WITHIN_S) == []


@in_loop
async def test_a_full_disk_of_the_database_is_a_503_and_is_outlived_by_the_run(cluster: Cluster) -> None:
    """While it lasts no heartbeat can be written: a short one is not noticed, after a long one the run goes on."""
    run_id = await cluster.submit(optim={"steps": 20})
    training = asyncio.create_task(_to_the_end(cluster, run_id))
    await cluster.until(run_id, lambda run: run.step >= 2)
    with filled(cluster.folder / "coordinator"):
        refused = await _refused(cluster)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        assert refused.json()["code"] == "database_unavailable"
        async with cluster.client() as client:
            assert (await client.run(run_id)).id == run_id, "it can still be read"
    mended_s = time.time()
    await asyncio.wait_for(training, 4 * WITHIN_S)
    found = await cluster.sound(run_id)
    assert no_progress(found.events, mended_s, WITHIN_S) == []


async def _to_the_end(cluster: Cluster, run_id: str) -> None:
    """One attempt after another: a database that is away for longer than a lease ends one."""
    while await cluster.train(run_id) != ExitCode.DONE:
        await cluster.until(run_id, lambda run: run.status == "queued")


async def _refused(cluster: Cluster) -> httpx2.Response:
    """Runs are submitted until one meets the full disk: what the log of the database has room for it still takes."""
    headers = {"Authorization": f"Bearer {cluster.key}"}
    async with asyncio.timeout(WITHIN_S), httpx2.AsyncClient(base_url=cluster.url, headers=headers) as http:
        while True:
            answer = await http.post("/v1/runs", json=cluster.spec | {"name": "x" * 60})
            if answer.status_code != 201:
                return answer
            await http.post(f"/v1/runs/{answer.json()['id']}/cancel")
