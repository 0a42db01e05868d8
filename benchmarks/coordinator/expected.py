"""What each page that is measured must show, known from what was filled in."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np

from benchmarks.coordinator.filling import Filled
from benchmarks.coordinator.rollout import NO_BROWSER, has_browser, long_rollout

A_PAGE = 50  # runs of the list


@dataclass(frozen=True)
class Page:
    """path: where it is asked for; shows: whether a text is what was filled in"""

    path: str
    shows: Callable[[str], bool]


def pages(url: str, filled: Filled) -> dict[str, list[Page]]:
    """By cell, the pages that are asked for in turn."""
    long = filled.long_run_id
    rollout = f"rollout page, 10,000 tokens{'' if has_browser() else NO_BROWSER}"
    return {
        "list page": list(lists(url, filled)),
        "run page": [run_page(filled, run) for run in filled.run_ids],
        "run page, long run": [run_page(filled, long)],
        "run's metrics, resolution 600": [metrics(filled, run) for run in filled.run_ids],
        "long run's metrics, resolution 600": [metrics(filled, long)],
        rollout: [Page(filled.rollout_path, is_long_rollout)],
    }


def lists(url: str, filled: Filled) -> Iterator[Page]:
    """Every page of the list of runs, the newest first, each at the cursor of the one before."""
    newest, after, at = [filled.long_run_id, *reversed(filled.run_ids)], None, 0
    connection = HTTPConnection(urlsplit(url).netloc)
    while at == 0 or after is not None:
        ids = newest[at : at + A_PAGE]
        yield Page("/" if after is None else f"/?after={after}", lambda text, ids=ids: linked(text) == ids)
        connection.request("GET", f"/v1/runs?limit={A_PAGE}{'' if after is None else f'&after={after}'}")
        after, at = json.loads(connection.getresponse().read())["next"], at + A_PAGE
    connection.close()


def linked(text: str) -> list[str]:
    """The runs to whose own pages it links, in order."""
    return re.findall(r'href="/runs/([^"/]+)"', text)


def run_page(filled: Filled, run_id: str) -> Page:
    """Its own step stands in its progress, and its chart has values of its metrics."""
    steps = filled.size.long_run_steps if run_id == filled.long_run_id else filled.size.steps

    def shows(text: str) -> bool:
        series = re.search(r'<script type="application/json" id="series">(.*?)</script>', text, re.DOTALL)
        values = [] if series is None else json.loads(series[1])["columns"]["reverse_kl"]
        low, high = filled.reverse_kl
        return (
            f'<progress max="{filled.size.steps}" value="{steps}"' in text
            and run_id in text
            and len(values) > 1
            and all(low * 0.999 <= value <= high * 1.001 for value in values)
        )

    return Page(f"/runs/{run_id}", shows)


def metrics(filled: Filled, run_id: str) -> Page:
    """Its buckets hold every row once, and the least and the largest value of them all."""
    rows = filled.size.long_run_steps if run_id == filled.long_run_id else filled.size.steps + 1

    def shows(text: str) -> bool:
        told = json.loads(text)
        kl = told["metrics"]["reverse_kl"]
        found = (min(kl["min"]), max(kl["max"]))
        return (
            told["run_id"] == run_id
            and sum(told["steps"]) == rows
            and all(math.isclose(*both, rel_tol=1e-4) for both in zip(found, filled.reverse_kl, strict=True))
        )

    return Page(f"/v1/runs/{run_id}/metrics?resolution=600", shows)


def is_long_rollout(text: str) -> bool:
    """Its tokens are those that were reported."""
    found = re.search(r'id="numbers-0">(.*?)</script>', text, re.DOTALL)
    if found is None:
        return False
    ids = np.frombuffer(base64.b64decode(json.loads(found[1])["ids"]), dtype="<i4")
    return np.array_equal(ids, long_rollout()[0].completion_ids)
