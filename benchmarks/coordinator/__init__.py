"""What the coordinator's pages cost with a thousand runs and a million points, and its memory when readers do not read.

A point is a step's row of twelve metrics. One client on one connection asks for one page after another; the time is
the client's, so it holds the server's and a loopback. The database is SQLite's, of a process as `python -m
tutelage.coordinator` starts it. The page of a rollout of ten thousand tokens is opened in a browser too, where there is
one. `streams`: clients follow one run's events, and half of them never read a byte.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.coordinator.filling import Filled, Size, fill
from benchmarks.coordinator.rollout import NO_BROWSER, has_browser, in_browser
from benchmarks.coordinator.streams import Followed, followed
from benchmarks.measure import Cell, load_1min
from benchmarks.processes import python, serving

WHOLE = Size(runs=1000, steps=1024, long_run_steps=81 * 1024)
LEASE_S = "3600"  # whoever writes the events sends no heartbeats
SHORT = Size(runs=20, steps=64, long_run_steps=2 * 64)


@dataclass(frozen=True)
class Load:
    """requests: of each page; openings: of one in the browser; events: while `clients` follow them."""

    requests: int
    openings: int
    clients: int
    events: int


def coordinator(*, short: bool) -> Iterator[Cell]:
    size, load = (SHORT, Load(5, 2, 6, 20)) if short else (WHOLE, Load(300, 20, 200, 3000))
    with tempfile.TemporaryDirectory() as folder:
        filled = fill(Path(folder) / "coordinator.db", size)
        command = python("tutelage.coordinator", "--data-dir", folder, "--port", "0", "--lease-s", LEASE_S)
        with serving(command, Path(folder) / "coordinator.log") as (url, process):
            for name, paths in pages(url, filled).items():
                yield page(name, url, paths, load.requests, filled)
            if has_browser():
                yield in_browser(f"{url}{filled.rollout_path}", load.openings)
            yield streams(asyncio.run(followed(url, process.pid, load.clients, load.events)))


def pages(url: str, filled: Filled) -> dict[str, list[str]]:
    """By cell, the paths that are asked in turn."""
    runs, long = filled.run_ids, filled.long_run_id
    return {
        "list page": lists(url),
        "run page": [f"/runs/{run}" for run in runs],
        "run page, long run": [f"/runs/{long}"],
        "run's metrics, resolution 600": [f"/v1/runs/{run}/metrics?resolution=600" for run in runs],
        "long run's metrics, resolution 600": [f"/v1/runs/{long}/metrics?resolution=600"],
        f"rollout page, 10,000 tokens{'' if has_browser() else NO_BROWSER}": [filled.rollout_path],
    }


def lists(url: str) -> list[str]:
    """Every page of the list of runs, each at the cursor of the one before."""
    paths, after = ["/"], None
    connection = HTTPConnection(urlsplit(url).netloc)
    while True:
        connection.request("GET", f"/v1/runs?limit=50{'' if after is None else f'&after={after}'}")
        after = json.loads(connection.getresponse().read())["next"]
        if after is None:
            connection.close()
            return paths
        paths.append(f"/?after={after}")


def page(name: str, url: str, paths: Sequence[str], requests: int, filled: Filled) -> Cell:
    connection = HTTPConnection(urlsplit(url).netloc)
    ms: list[float] = []
    sizes: list[int] = []
    for path in islice(cycle(paths), requests):
        begun_ns = time.perf_counter_ns()
        connection.request("GET", path)
        answer = connection.getresponse()
        content = answer.read()
        ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
        sizes.append(len(content))
        assert answer.status == 200, content
    connection.close()
    return Cell(
        cell=name,
        peer=None,
        ours=statistics.median(ms),
        equal=True,
        counted={
            "p95_ms": percentile(ms, 0.95),
            "max_ms": max(ms),
            "requests": requests,
            "bytes": statistics.median(sizes),
            "runs": len(filled.run_ids),
            "points": filled.points,
            "load_1min": load_1min(),
        },
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the values that so large a share of them does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def streams(seen: Followed) -> Cell:
    """ours: until every reader has every event; equal: each once and in order."""
    return Cell(
        cell=f"event streams, {seen.readers} readers and {seen.deaf} that never read",
        peer=None,
        ours=1e3 * seen.took_s,
        equal=seen.is_whole,
        counted={
            "events": seen.events,
            "sent_mb": seen.received_bytes / 1e6,
            "rss_before_mb": seen.rss_before_bytes / 1e6,
            "rss_half_mb": seen.rss_half_bytes / 1e6,
            "rss_after_mb": seen.rss_after_bytes / 1e6,
            "load_1min": load_1min(),
        },
    )
