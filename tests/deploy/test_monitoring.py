"""Boards and alerts ask for what is measured, and all that is measured is on one of them.

promtool says when each alert fires, see tests/e2e/alerts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from deployed import K8S, ROOT, measured, named, of_kind, overlay
from docs.generate.boards.files import FOLDER, boards
from promql import asked

MADE = boards()
BOARDS = {path.rpartition("/")[2]: json.loads(text) for path, text in MADE.items()}
RULES = [
    rule
    for group in yaml.safe_load((K8S / "components" / "monitoring" / "alerts.yaml").read_text())["spec"]["groups"]
    for rule in group["rules"]
]
TARGET = {"job", "instance"}  # what Prometheus adds to every series
OTHERS = {"up": TARGET, "scrape_duration_seconds": TARGET}  # what Prometheus itself measures
PANELS = {"row", "timeseries", "stat", "state-timeline", "table"}
UNSEEN: dict[str, str] = {}  # what is on no board and in no alert, with the reason


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def targets() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, board in BOARDS.items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target


def expressions() -> Iterator[tuple[str, str]]:
    """Where each stands, and itself."""
    yield from ((where, target["expr"]) for where, target in targets())
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)


def chosen() -> Iterator[tuple[str, str, str]]:
    """Board, metric and label of each choice that a board offers."""
    for name, board in BOARDS.items():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
                yield name, metric, label


@pytest.mark.parametrize("path", MADE)
def test_a_committed_board_is_what_make_docs_makes(path: str) -> None:
    assert (ROOT / path).read_text() == MADE[path], "run `make docs`"


def test_every_board_is_mounted_where_grafana_looks() -> None:
    assert {f"{FOLDER}/{path.name}" for path in (ROOT / FOLDER).iterdir()} == set(MADE)
    mounted = named(overlay("production"), "ConfigMap", "boards")
    assert mounted["data"] == {path.rpartition("/")[2]: text for path, text in MADE.items()}
    assert mounted["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert sum(map(len, MADE.values())) < 200_000, "kubectl keeps a copy in an annotation, of at most 256 KiB"


def test_every_expression_asks_for_what_is_measured() -> None:
    known = measured() | OTHERS
    for where, expr in expressions():
        found = asked(expr)
        assert found.selectors, where
        assert found.names <= known.keys(), where
        for name, labels in found.selectors:
            assert labels <= known[name] | TARGET, f"{where}: {name} has no such label"
        assert found.grouped <= set().union(TARGET, *(known[name] for name in found.names)), where
    for board, metric, label in chosen():
        assert label in known[metric], board


def test_all_that_is_measured_is_on_a_board_or_in_an_alert() -> None:
    seen = {name for _, expr in expressions() for name in asked(expr).names} | {metric for _, metric, _ in chosen()}
    family = re.compile(r"_(bucket|count|sum)$")
    unseen = {family.sub("", name) for name in measured()} - {family.sub("", name) for name in seen}
    assert unseen == UNSEEN.keys()


def test_what_several_coordinators_tell_alike_is_never_summed() -> None:
    """Each tells of every run, teacher and queue; of its own requests, leases and readers alone."""
    alike = re.compile(r"tutelage_(run|runs|train|queue|dead|redis|artefacts|database)_")
    for where, expr in expressions():
        assert [name for name in asked(expr).added_up if alike.match(name)] == [], where
    assert asked("max(x) + sum by (run_id) (rate(tutelage_run_step[5m]))").added_up == {"tutelage_run_step"}


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_is_laid_out(name: str) -> None:
    board = BOARDS[name]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: Counter[tuple[int, int]] = Counter()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert panel["type"] in PANELS
        assert at["x"] + at["w"] <= 24
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert max(taken.values()) == 1, "two panels are in one place"
    lines = {y for _, y in taken}
    assert lines == set(range(len(lines))), "there is a gap"


@pytest.mark.parametrize("name", BOARDS)
def test_a_panel_says_what_it_shows(name: str) -> None:
    for panel in panels(BOARDS[name]):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    titles = [panel["title"] for panel in BOARDS[name]["panels"]]
    assert len(set(titles)) == len(titles)


def test_a_legend_names_labels_that_its_series_have() -> None:
    known = measured() | OTHERS
    for where, target in targets():
        found = asked(target["expr"])
        left = found.grouped or set().union(TARGET, *(known[name] for name in found.names))
        assert target["legendFormat"], where
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= left, where


def test_boards_are_told_apart_and_lead_to_each_other() -> None:
    for key in ("uid", "title"):
        assert len({board[key] for board in BOARDS.values()}) == len(BOARDS) == 4
    for board in BOARDS.values():
        assert board["links"][0]["tags"] == board["tags"] == ["tutelage"]
        assert "datasource" in [variable["name"] for variable in board["templating"]["list"]]
    assert [(board, label) for board, _, label in chosen()] == [("runs.json", "run_id")]


def test_boards_name_alerts_that_are_there() -> None:
    alerts = {rule["alert"] for rule in RULES}
    told = {name for board in BOARDS.values() for panel in panels(board) for name in fired(panel["description"])}
    assert len(told) > 8
    assert told <= alerts


def fired(description: str) -> list[str]:
    return re.findall(r"([A-Z]\w+[A-Z]\w+) (?:fires|holds)\b", description)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_is_wrong_and_where_to_read_on(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert anchor == rule["alert"].lower()
    assert f"### {rule['alert']}\n" in (ROOT / page).read_text()
    summary = rule["annotations"]["summary"]
    assert summary.endswith(".")
    assert set(re.findall(r"\$labels\.(\w+)", summary)) <= asked(rule["expr"]).grouped


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    cases = {"fires": set(), "is quiet": set()}
    for path in (ROOT / "tests" / "e2e" / "alerts").glob("*.yaml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for each in test["promql_expr_test"]:
                alert = re.search(r'alertname="(\w+)", alertstate="firing"', each["expr"])
                assert alert is not None, path.name
                cases["fires" if each["exp_samples"] else "is quiet"].add(alert[1])
    assert cases["fires"] == cases["is quiet"] == {rule["alert"] for rule in RULES}


def test_the_rules_of_the_overlay_are_these() -> None:
    [rules] = of_kind(overlay("production"), "PrometheusRule")
    assert [rule for group in rules["spec"]["groups"] for rule in group["rules"]] == RULES
