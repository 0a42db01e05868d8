"""The compose file as it comes up: a run from outside with curl alone, what containers may do, and what `down` leaves.

`tests/e2e/images/run` runs this file, which pytest does not collect by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

from containers_up import Deployed
from pages import ROOT, blocks

from tutelage_client.coordinator import CoordinatorClient

PROGRAMS = ("conmon", "aardvark-dns", "runc", "catatonit")


def test_a_run_submitted_with_curl_from_outside_succeeds(stack: Deployed, tmp_path: Path) -> None:
    """docs/http.md as it stands, less its last part: only the coordinator is published. A file tells curl the key."""
    (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {stack.key}"\n')
    (tmp_path / "examples").symlink_to(stack.clone / "examples")
    script = [block for block in blocks(ROOT / "docs" / "http.md", "bash") if "$TEACHER" not in block]
    assert len(script) == 4
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -euo pipefail", *script])],
        cwd=tmp_path,
        env=os.environ | {"TUTELAGE": stack.url, "CURL_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr + stack.compose("logs", "--no-color")
    assert "\nsucceeded\n" in done.stdout
    assert (tmp_path / "distilled" / "model.safetensors").stat().st_size > 0
    [run] = re.findall(r"/v1/runs/(\S+)$", done.stdout, re.MULTILINE)
    lines = stack.compose("logs", "--no-color", "trainer").splitlines()
    assert [line for line in lines if "run leased" in line and run in line]


async def test_a_second_trainer_for_a_run_is_refused_though_they_share_the_volume(stack: Deployed) -> None:
    async with CoordinatorClient(stack.url, stack.key) as client, asyncio.timeout(90):
        [done] = (await client.runs()).data
        run = await client.submit(done.spec | {"name": "held", "optim": {"steps": 100_000}})
        while (await client.run(run.id)).status != "running":
            await asyncio.sleep(0.2)
        command = ("exec", stack.containers["trainer"]["Name"], "/opt/tutelage/bin/python", "-m", "tutelage.trainer")
        second = await asyncio.to_thread(stack.engine.podman, *command, "--run", run.id, check=False)
        assert second.returncode == 64
        assert f"{run.id} is running; only a queued run can be claimed" in second.stderr
        assert (await client.cancel(run.id)).id == run.id
        while not (await client.run(run.id)).status.final:
            await asyncio.sleep(0.2)


def test_every_process_is_locked_in(stack: Deployed) -> None:
    """As the kernel has it: no capability, no way to get one, no user that is root, no root that can be written to."""
    assert stack.containers.keys() == {"postgres", "redis", "coordinator", "trainer", "teacher"}
    for name, container in stack.containers.items():
        process = Path("/proc", str(container["State"]["Pid"]))
        status = dict(re.findall(r"^(\w+):\t(.*)$", (process / "status").read_text(), re.MULTILINE))
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, name
        assert status["NoNewPrivs"] == "1", name
        assert "0" not in status["Uid"].split(), name
        mounts = [line.split() for line in (process / "mounts").read_text().splitlines()]
        assert [options.split(",")[0] for _, where, _, options, *_ in mounts if where == "/"] == ["ro"], name
        assert container["HostConfig"]["PidsLimit"] > 0, name
        assert container["HostConfig"]["Memory"] > 0, name


def test_only_the_coordinator_is_reached_from_outside_and_reaches_out(stack: Deployed) -> None:
    for name, container in stack.containers.items():
        bound = [each for ports in (container["HostConfig"]["PortBindings"] or {}).values() for each in ports or []]
        assert [each["HostIp"] for each in bound] == (["127.0.0.1"] if name == "coordinator" else []), name
        routes = Path("/proc", str(container["State"]["Pid"]), "net", "route").read_text().splitlines()[1:]
        assert ("00000000" in {line.split()[1] for line in routes}) == (name == "coordinator"), name


def test_down_leaves_volumes_and_with_a_flag_nothing(stack: Deployed) -> None:
    stack.compose("down")
    named = {f"tutelage_{name}" for name in ("data", "postgres", "redis")}
    assert stack.engine.there() == {"containers": set(), "networks": set(), "volumes": named}
    stack.compose("down", "--volumes")
    assert not any(stack.engine.there().values())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(stack.url.rpartition(":")[2]))) != 0
    links = json.loads(subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout)
    assert not [each["ifname"] for each in links if each["ifname"].startswith(("podman", "veth"))]
    until = time.monotonic() + 30
    while left := [name for name in map(_program, Path("/proc").glob("[0-9]*")) if name in PROGRAMS]:
        assert time.monotonic() < until, left  # each ends by itself, a moment after its container
        time.sleep(0.1)


def _program(process: Path) -> str | None:
    try:
        return (process / "comm").read_text().strip()
    except OSError:  # it has ended
        return None
