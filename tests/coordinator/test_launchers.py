"""One contract for everything that launches trainers: real processes, and the API of a cluster."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import kmock as mocks
import psutil
import pytest
from launched import MockedCluster, Place, Processes

from tutelage.coordinator.launchers import TOLD, Launch, Launcher, LaunchFailed, LaunchStatus, how_it_ended
from tutelage.coordinator.launchers.cluster import Cluster
from tutelage.coordinator.launchers.kubernetes import KubernetesLauncher
from tutelage.coordinator.launchers.processes import ProcessLauncher

RANK = """
import os, pathlib, signal, sys, time
rank, here = os.environ["RANK"], pathlib.Path(__file__).parent
def go(*_):
    (here / f"saved-{rank}").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, go)
new = here / f"new-{rank}"
new.write_text(os.environ["TUTELAGE_TRAINER_RUN"] + " of " + os.environ["WORLD_SIZE"])
new.rename(here / f"rank-{rank}")
while True:
    time.sleep(0.01)
"""
ONE, TWO = Launch("run-0123456789abcdef", 1), Launch("run-0123456789abcdef", 2)


@pytest.fixture(params=["processes", "job", "trainjob"])
def place(request: pytest.FixtureRequest, tmp_path: Path, until: Callable[..., Any]) -> Place:
    if request.param == "processes":
        return Processes(tmp_path, until)
    return MockedCluster(request.getfixturevalue("kmock"), tmp_path, nodes=1 if request.param == "job" else 2)


@pytest.fixture
async def launcher(place: Place) -> AsyncIterator[Launcher]:
    launcher = place.launcher()
    yield launcher
    for launch in (ONE, TWO):
        await launcher.signal(launch, signal.SIGKILL)
    await launcher.close()


async def ended(launcher: Launcher, launch: Launch) -> LaunchStatus:
    async with asyncio.timeout(30):
        while (status := await launcher.status(launch)).lives:
            await asyncio.sleep(0.01)
    return status


async def test_what_was_not_launched_is_absent_and_takes_no_signal(launcher: Launcher):
    assert await launcher.status(ONE) == LaunchStatus("absent")
    assert await launcher.logs(ONE, 10) is None
    for number in (signal.SIGTERM, signal.SIGKILL):
        await launcher.signal(ONE, number)


async def test_a_launch_lives_until_it_ends_and_its_code_is_known(launcher: Launcher, place: Place):
    for launch, code in ((ONE, 0), (TWO, 86)):
        assert await launcher.launch(launch)
        assert (await launcher.status(launch)).lives
        await place.begin(launch)
        assert await launcher.status(launch) == LaunchStatus("running")
        await place.end(launch, code, ["it is done"])
        status = await ended(launcher, launch)
        assert (status.phase, status.exit_code) == ("ended", code)


async def test_a_name_is_launched_once_even_after_its_end(launcher: Launcher, place: Place):
    assert await launcher.launch(ONE)
    assert not await launcher.launch(ONE)
    await place.end(ONE, 70, [])
    await ended(launcher, ONE)
    assert not await launcher.launch(ONE)
    assert await launcher.launch(TWO)
    assert place.made() == [ONE.name, TWO.name]


async def test_of_many_coordinators_one_launches(launcher: Launcher, place: Place):
    others = [place.launcher() for _ in range(4)]
    launched = await asyncio.gather(*(each.launch(ONE) for each in (launcher, *others) for _ in range(3)))
    assert sum(launched) == 1
    assert place.made() == [ONE.name]
    for other in others:
        await other.close()


async def test_a_coordinator_that_was_started_again_knows_as_much(launcher: Launcher, place: Place):
    await launcher.launch(ONE)
    await place.begin(ONE)
    again = place.launcher()
    assert await again.status(ONE) == LaunchStatus("running")
    await place.end(ONE, 64, ["a sentence"])
    status = await ended(again, ONE)
    assert (status.phase, status.exit_code) == ("ended", 64)
    assert "a sentence\n" in (await again.logs(ONE, 5) or "")
    await again.close()


async def test_the_last_lines_of_a_log(launcher: Launcher, place: Place):
    await launcher.launch(ONE)
    await place.end(ONE, 0, ["one", "two", "three"])
    await ended(launcher, ONE)
    assert "three\n" in (await launcher.logs(ONE, 100) or "")


async def test_told_to_go_it_ends_and_its_name_stays_taken(launcher: Launcher, place: Place):
    await launcher.launch(ONE)
    await place.begin(ONE)
    await launcher.signal(ONE, signal.SIGTERM)
    await place.obey(ONE)
    status = await ended(launcher, ONE)
    assert status.phase == "ended"
    assert status.exit_code in (75, 128 + signal.SIGTERM)
    assert not await launcher.launch(ONE)
    await launcher.signal(ONE, signal.SIGTERM)
    assert (await launcher.status(ONE)).phase == "ended"


async def test_killed_it_has_ended_and_its_name_stays_taken(launcher: Launcher, place: Place):
    await launcher.launch(ONE)
    await place.begin(ONE)
    await launcher.signal(ONE, signal.SIGKILL)
    assert (await ended(launcher, ONE)).phase == "ended"
    assert not await launcher.launch(ONE)
    another = place.launcher()
    assert not await another.launch(ONE)
    await another.close()
    assert place.made() == [ONE.name]


async def test_killed_before_it_ran_its_name_stays_taken(launcher: Launcher, place: Place):
    await launcher.launch(ONE)
    await launcher.signal(ONE, signal.SIGKILL)
    assert (await ended(launcher, ONE)).phase == "ended"
    assert not await launcher.launch(ONE)


async def test_what_has_ended_keeps_its_code_and_its_log_when_it_is_killed(launcher: Launcher, place: Place):
    await launcher.launch(ONE)
    await place.end(ONE, 70, ["its last words"])
    before = await ended(launcher, ONE)
    await launcher.signal(ONE, signal.SIGKILL)
    assert await launcher.status(ONE) == before
    assert "its last words\n" in (await launcher.logs(ONE, 10) or "")


async def test_a_process_is_told_its_run_and_who_kills_it_is_in_its_code(tmp_path: Path, until: Callable[..., Any]):
    place = Processes(tmp_path, until)
    launcher = place.launcher()
    await launcher.launch(ONE)
    await place.begin(ONE)
    assert await launcher.logs(ONE, 10) == f"begins {ONE.run_id} {ONE.name}\n"
    shell = psutil.Process(int((tmp_path / "launches" / ONE.name / "pid").read_text()))
    [trainer] = shell.children()
    trainer.kill()
    status = await ended(launcher, ONE)
    assert status == LaunchStatus("ended", 137)
    assert "was killed by signal 9; if nobody killed it" in how_it_ended(status, ONE)
    await launcher.close()


async def test_a_launch_whose_folder_is_damaged_is_told_in_one_sentence(tmp_path: Path, until: Callable[..., Any]):
    place = Processes(tmp_path, until)
    launcher = place.launcher()
    await launcher.launch(ONE)
    await place.end(ONE, 0, [])
    await ended(launcher, ONE)
    (tmp_path / "launches" / ONE.name / "lock").unlink()
    with pytest.raises(LaunchFailed, match=rf"cannot look for a process in {tmp_path}/launches: No such file"):
        await launcher.status(ONE)
    with pytest.raises(LaunchFailed, match="cannot signal a process in"):
        await launcher.signal(ONE, signal.SIGTERM)


async def test_under_torchrun_every_rank_is_told_the_run_and_told_to_go(tmp_path: Path):
    """What a rank ended with is lost there: torchrun ends with 1, which speaks for nobody that has spoken itself."""
    (tmp_path / "rank.py").write_text(RANK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    launcher = ProcessLauncher(tmp_path / "launches", [*torchrun, str(tmp_path / "rank.py")], env)
    await launcher.launch(ONE)
    async with asyncio.timeout(120):
        while len(list(tmp_path.glob("rank-*"))) < 2:
            assert (await launcher.status(ONE)).phase != "ended", await launcher.logs(ONE, 30)
            await asyncio.sleep(0.05)
    for rank in (0, 1):
        assert (tmp_path / f"rank-{rank}").read_text() == f"{ONE.run_id} of 2"
    await launcher.signal(ONE, signal.SIGTERM)
    status = await ended(launcher, ONE)
    assert status.phase == "ended"
    assert status.exit_code not in TOLD
    assert len(list(tmp_path.glob("saved-*"))) == 2, "each rank had the time to save"
    await launcher.close()


async def test_a_job_is_the_template_with_the_run_in_its_environment(kmock: mocks.KubernetesEmulator, tmp_path: Path):
    place = MockedCluster(kmock, tmp_path, nodes=1)
    launcher = place.launcher()
    await launcher.launch(ONE)
    await launcher.close()
    job = place.job(ONE)
    [container] = job["spec"]["template"]["spec"]["containers"]
    run = [
        {"name": "TUTELAGE_TRAINER_RUN", "value": ONE.run_id},
        {"name": "TUTELAGE_TRAINER_NAME", "value": ONE.name},
    ]
    assert container == {"name": "trainer", "image": "trainer", "env": [{"name": "A", "value": "b"}, *run]}
    assert job["spec"]["backoffLimit"] == 0, "attempts are the coordinator's"
    assert job["metadata"]["labels"] == {"part": "x", "tutelage/run": ONE.run_id}
    assert {request.headers["Authorization"] for request in kmock} == {"Bearer a token"}


async def test_the_token_is_read_each_time_as_it_is_renewed(kmock: mocks.KubernetesEmulator, tmp_path: Path):
    launcher = MockedCluster(kmock, tmp_path, nodes=1).launcher()
    await launcher.status(ONE)
    (tmp_path / "token").write_text("another")
    await launcher.status(ONE)
    assert [request.headers["Authorization"] for request in kmock] == ["Bearer a token", "Bearer another"]
    await launcher.close()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (520, b"the origin is odd", r"with 520: the origin is odd"),
        (200, b"<html>sign in</html>", r"with what is no object of a cluster: '<html>sign in</html>'"),
        (200, b"[1]", r"with what is no object of a cluster: '\[1\]'"),
    ],
    ids=["a status of its own", "no JSON", "no object"],
)
async def test_what_a_proxy_answers_in_place_of_the_cluster_is_told(
    status: int, body: bytes, sentence: str, kmock: mocks.KubernetesEmulator, tmp_path: Path
):
    launcher = MockedCluster(kmock, tmp_path, nodes=1).launcher()
    _ = kmock[f"get /apis/batch/v1/namespaces/tutelage/jobs/{ONE.name}"] << status << body
    with pytest.raises(LaunchFailed, match=sentence):
        await launcher.status(ONE)
    await launcher.close()


async def test_a_cluster_that_refuses_or_is_away_is_told_in_one_sentence(
    kmock: mocks.KubernetesEmulator, tmp_path: Path
):
    launcher = MockedCluster(kmock, tmp_path, nodes=1).launcher()
    refusal = {"kind": "Status", "code": 403, "message": 'jobs.batch "x" is forbidden'}
    job = f"get /apis/batch/v1/namespaces/tutelage/jobs/{ONE.name}"
    _ = kmock[job] << 403 << refusal
    with pytest.raises(LaunchFailed, match=r'403: jobs\.batch "x" is forbidden'):
        await launcher.status(ONE)
    del kmock.objects[mocks.resource("batch/v1/cronjobs"), "tutelage", "trainer"]
    with pytest.raises(LaunchFailed, match="no CronJob 'trainer' to copy"):
        await launcher.launch(ONE)
    await launcher.close()
    away = KubernetesLauncher(Cluster("http://127.0.0.1:9", tmp_path), "trainer")
    with pytest.raises(LaunchFailed, match=r"http://127\.0\.0\.1:9 does not answer"):
        await away.status(ONE)
    await away.close()
    with pytest.raises(LaunchFailed, match="cannot read the service account"):
        Cluster("http://127.0.0.1:9", tmp_path / "none")
