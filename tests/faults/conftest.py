"""One set of processes for the whole folder, in one event loop; each test finds it well."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from cluster import Cluster


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def processes(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.stop()


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(processes: Cluster) -> Cluster:
    await processes.mend()
    return processes
