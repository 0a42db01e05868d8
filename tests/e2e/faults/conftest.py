"""The services as in tests/faults, each with a small disk of its own, open to other networks of this machine."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path

import pytest_asyncio
from cluster import Cluster
from rooted import small_disk

DISKS = {"queue": "12m", "coordinator": "12m", "coordinator/artefacts": "4m"}


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def processes() -> AsyncGenerator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="tutelage-faults-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for name, size in DISKS.items():
            stack.enter_context(small_disk(folder / name, size))
        cluster = Cluster(folder, bind="0.0.0.0")
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(processes: Cluster) -> Cluster:
    await processes.mend()
    return processes
