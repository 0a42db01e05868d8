"""docs/reference/metrics.md: the rows of a run, and what Prometheus finds at /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from docs.generate.markdown import code, table
from prometheus_client import CollectorRegistry

from tutelage.coordinator.exposition import FLEET, RUNS, Family
from tutelage.telemetry import CoordinatorMetrics, HttpMetrics, TeacherMetrics
from tutelage_client.wire.measures import COUNTED, EVALUATION, LEARNING, WRITING

INTRO = """# Metrics

## Of a run

`GET /v1/runs/{id}/metrics` and `tutelage runs metrics` give one row a step. A name is absent where it does not apply,
and null where there was nothing to measure. Means are over tokens, not over rollouts, unless the unit says so.
"""
PROMETHEUS = """## Of a service

`GET /metrics` of every HTTP service, for Prometheus. A trainer serves no HTTP: the coordinator tells of its run.
"""
COORDINATOR = """Every coordinator counts its own work, and tells all who ask. Of runs, teachers and queues each tells
what the database and the queue say, which is the same of all: take the `max` over coordinators, not the sum. Where keys
are asked for, that goes to a key with the scope `metrics:read` alone, of every project.

A run is told by its last row, in the words of the tables above, until it has ended; then its series are gone. Its
counters hold all that was reported and never fall: what a later attempt did again was done twice, and counts twice.
"""
GROUPS = {
    "Counted in every row": COUNTED,
    "Of the step's text and time": WRITING,
    "Of the learned tokens": LEARNING,
    "Of an evaluation": EVALUATION,
}


def metrics_page() -> str:
    parts = [INTRO]
    for title, group in GROUPS.items():
        rows = [[code(name), measure.unit, measure.meaning] for name, measure in group.items()]
        parts += [f"### {title}\n", table(("name", "unit", "meaning"), rows)]
    registry = CollectorRegistry()
    parts += [PROMETHEUS, "### Of both services\n", _prometheus(_rows(HttpMetrics.of(registry)))]
    parts += ["### Of a teacher\n", _prometheus(_rows(TeacherMetrics.of(registry)))]
    parts.append("`door` is `http` or `queue`; `outcome` is `ok`, `refused`, `failed` or `dropped`.\n")
    parts += ["### Of a coordinator\n", COORDINATOR]
    for title, rows in (
        ("Its own work", _rows(CoordinatorMetrics.of(registry))),
        ("Runs that have not ended", _told(RUNS)),
        ("Teachers, queues and the disk", _told(FLEET)),
    ):
        parts += [f"#### {title}\n", _prometheus(rows)]
    return "\n".join(parts).rstrip("\n")


def _prometheus(rows: Iterator[list[str]]) -> str:
    return table(("name", "type", "labels", "meaning"), rows)


def _told(families: dict[str, Family]) -> Iterator[list[str]]:
    for name, family in families.items():
        yield [code(name), family.kind, ", ".join(map(code, family.labels)), family.meaning]


def _rows(metrics: Any) -> Iterator[list[str]]:
    for field in fields(metrics):
        collector = getattr(metrics, field.name)
        [described] = collector.describe()
        name = described.name + ("_total" if described.type == "counter" else "")
        labels = ", ".join(map(code, collector._labelnames))  # the library has no public way to ask
        yield [code(name), described.type, labels, described.documentation]
