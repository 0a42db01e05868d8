"""Every expression of boards and alerts, asked of a Prometheus that scrapes a stack in which a run goes on.

Only with series does it show whether they match each other. The coordinator is scraped under two names, as two of them
would be, which tell the same. The program `prometheus` must be on the PATH.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from docs.generate.boards.files import BOARDS
from embedded_stack import Up

from tutelage.standalone.stack import free_port

WITHIN_S = 60.0
SCRAPED = "count(sum_over_time(up[10s]) >= 5) == 3 and on () max(delta(tutelage_run_step[10s])) > 0"
QUERIES = [
    (
        f"{board.name}: {panel.title}: {query.legend}",
        query.expr.replace("$__rate_interval", "10s").replace("$run_id", ".+"),
    )
    for board in BOARDS
    for row in board.rows
    for panel in row.panels
    for query in panel.queries
]
# What a stack on one machine has nothing to say of.
SILENT = {
    # without prices
    "runs: Runs that have not ended: teacher cost",
    "runs: Dollars of teachers an hour: {{run_id}}",
    # without a reward in the spec
    "runs: Reward: {{run_id}}",
    # without a limit of the queue's server
    "queue: Memory: limit",
    "queue: Share of the memory: used",
    # without a cache
    "teachers: Score cache: {{outcome}}",
    "teachers: Size of the score cache: {{place}}",
    # without upstreams, and a canary that fails
    "teachers: Canaries that failed in an hour: {{instance}}",
    "teachers: Taking work: {{replica}}",
    "teachers: What befell them in an hour: {{replica}} {{event}}",
    "teachers: Circuit breaker: {{upstream}}",
    "teachers: Calls at once: {{upstream}}",
}


@pytest.fixture
def prometheus(stack: Up, rules: Path, tmp_path: Path) -> Iterator[httpx2.Client]:
    [teacher] = stack.described["teachers"]
    coordinator = httpx2.URL(stack.url).port
    jobs = {"coordinator": [f"127.0.0.1:{coordinator}", f"localhost:{coordinator}"], "teacher": [_address(teacher)]}
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": to}]} for job, to in jobs.items()],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    argv = [
        "prometheus",
        "--config.file=prometheus.yaml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(argv, cwd=tmp_path, stdout=log, stderr=log)
    try:
        with httpx2.Client(base_url=f"http://{address}") as client:
            _until_scraped(client, tmp_path / "log")
            yield client
    finally:
        process.terminate()
        process.wait(20)


def _address(teacher: dict[str, Any]) -> str:
    return httpx2.URL(teacher["url"]).netloc.decode()


def _until_scraped(client: httpx2.Client, log: Path) -> None:
    """Often enough for rates: a step was made between two scrapes."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        try:
            if client.get("/-/ready").is_success and asked(client, SCRAPED):
                return
        except httpx2.ConnectError:
            pass
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def asked(client: httpx2.Client, expr: str) -> list[Any]:
    answer = client.get("/api/v1/query", params={"query": expr}).json()
    assert answer["status"] == "success", f"{expr}: {answer}"
    return answer["data"]["result"]


def test_boards_have_series_to_show(prometheus: httpx2.Client) -> None:
    silent = {where for where, expr in QUERIES if not asked(prometheus, expr)}
    assert silent == SILENT


def test_rules_are_evaluated_and_nothing_is_wrong(prometheus: httpx2.Client) -> None:
    deadline = time.monotonic() + WITHIN_S
    rules: list[Any] = []
    while not rules or any(rule["health"] == "unknown" for rule in rules):
        assert time.monotonic() < deadline
        rules = [each for group in prometheus.get("/api/v1/rules").json()["data"]["groups"] for each in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []
