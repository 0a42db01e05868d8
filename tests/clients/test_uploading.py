"""A file goes up to a real coordinator over a line that breaks, and past a kill; what arrived is not sent again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fault_proxy import FaultProxy

from tutelage.standalone.children import Child, answers_ready
from tutelage.standalone.stack import free_port
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy
from tutelage_client.uploading import PART_BYTES

SIZE = PART_BYTES + (8 << 20)
PATIENT = RetryPolicy(deadline_s=60.0)


@pytest.fixture
async def coordinator(tmp_path: Path) -> AsyncIterator[Child]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [sys.executable, "-m", "tutelage.coordinator", "--data-dir", str(tmp_path / "data"), "--port", str(port)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TUTELAGE_")}
    child = Child("coordinator", argv, tmp_path / "log", env, url, lambda: answers_ready(url))
    await child.start()
    yield child
    await child.stop(grace_s=5)


async def test_a_file_arrives_whole_over_a_line_that_breaks_and_past_a_kill(coordinator: Child, tmp_path: Path) -> None:
    assert coordinator.url is not None
    source = tmp_path / "model.tar"
    content = random.Random(1).randbytes(SIZE)
    source.write_bytes(content)
    killed = asyncio.Event()

    def kill(sent: int, _: int) -> None:
        if sent > SIZE // 2 and not killed.is_set():
            os.kill(coordinator.pid, signal.SIGKILL)
            killed.set()

    async def start_again() -> None:
        await killed.wait()
        assert coordinator.process is not None
        await coordinator.process.wait()
        await coordinator.start()

    async with FaultProxy(int(coordinator.url.rpartition(":")[2])) as line:
        await line.set(limit_request_bytes=5 << 20)
        async with CoordinatorClient(f"http://127.0.0.1:{line.port}") as client:
            uploading = client.upload(source, progress=kill, patience=PATIENT)
            file, _ = await asyncio.gather(uploading, start_again())
            assert file.bytes == SIZE
            await line.set()
            copy = await client.download_file(file.id, tmp_path / "copy")
            assert copy.read_bytes() == content
            sent = line.request_bytes
            assert SIZE < sent < 1.5 * SIZE, "over six connections or more, and what arrived of each was kept"
            assert await client.upload(source) == file
            assert line.request_bytes - sent < 10_000


async def test_a_file_that_becomes_shorter_while_it_is_sent_is_not_taken_for_another(
    coordinator_url: str, tmp_path: Path
) -> None:
    source = tmp_path / "model.tar"
    source.write_bytes(bytes(3 << 20))
    async with CoordinatorClient(coordinator_url) as client:
        with pytest.raises(InvalidInput, match=r"model\.tar became shorter while it was uploaded; upload it again"):
            await client.upload(source, progress=lambda *_: source.write_bytes(b"short"))
