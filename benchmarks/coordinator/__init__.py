"""What the coordinator's pages cost with a thousand runs and a million points, and its memory when readers do not read.

A point is a step's row of twelve metrics. One client on one connection asks for one page after another; the time is
the client's, so it holds the server's and a loopback. The database is SQLite's, of a process as `python -m
tutelage.coordinator` starts it. The page of a rollout of ten thousand tokens is opened in a browser too, where there is
one. `streams`: clients follow one run's events, and half of them never read a byte.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.coordinator.expected import Page, pages
from benchmarks.coordinator.filling import Filled, Size, fill
from benchmarks.coordinator.rollout import has_browser, in_browser
from benchmarks.coordinator.streams import Followed, followed
from benchmarks.measure import Cell, load_1min, percentile, target
from benchmarks.processes import python, serving

WHOLE = Size(runs=1000, steps=1024, long_run_steps=81 * 1024)
LEASE_S = "3600"  # whoever writes the events sends no heartbeats
# What is wanted: at the 95th percentile, and of memory while readers that do not read are sent the second half.
LIST_MS, RUN_MS, GROWN_MB = 100.0, 200.0, 16.0
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
            for name, asked in pages(url, filled).items():
                yield page(name, url, asked, load.requests, filled)
            if has_browser():
                yield in_browser(f"{url}{filled.rollout_path}", load.openings)
            yield streams(asyncio.run(followed(url, process.pid, load.clients, load.events)))


def page(name: str, url: str, asked: Sequence[Page], requests: int, filled: Filled) -> Cell:
    """equal: every answer shows what was filled in"""
    connection = HTTPConnection(urlsplit(url).netloc)
    ms: list[float] = []
    sizes: list[int] = []
    right = True
    for each in islice(cycle(asked), requests):
        begun_ns = time.perf_counter_ns()
        connection.request("GET", each.path)
        answer = connection.getresponse()
        content = answer.read()
        ms.append((time.perf_counter_ns() - begun_ns) / 1e6)
        sizes.append(len(content))
        right = right and answer.status == 200 and each.shows(content.decode())
    connection.close()
    counted = {
        "p95_ms": percentile(ms, 0.95),
        "max_ms": max(ms),
        "requests": requests,
        "bytes": statistics.median(sizes),
        "runs": len(filled.run_ids),
        "points": filled.points,
        "load_1min": load_1min(),
    }
    wanted_ms = LIST_MS if name == "list page" else RUN_MS
    return Cell(
        cell=name,
        peer=None,
        ours=statistics.median(ms),
        equal=right,
        counted=counted,
        target=target(counted, "p95_ms", wanted_ms),
    )


def streams(seen: Followed) -> Cell:
    """ours: until every reader has every event; equal: each once and in order."""
    counted = {
        "events": seen.events,
        "sent_mb": seen.received_bytes / 1e6,
        "rss_before_mb": seen.rss_before_bytes / 1e6,
        "rss_half_mb": seen.rss_half_bytes / 1e6,
        "rss_after_mb": seen.rss_after_bytes / 1e6,
        "rss_grown_mb": (seen.rss_after_bytes - seen.rss_half_bytes) / 1e6,
        "load_1min": load_1min(),
    }
    return Cell(
        cell=f"event streams, {seen.readers} readers and {seen.deaf} that never read",
        peer=None,
        ours=1e3 * seen.took_s,
        equal=seen.is_whole,
        counted=counted,
        target=target(counted, "rss_grown_mb", GROWN_MB),
    )
