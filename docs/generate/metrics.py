"""docs/reference/metrics.md: the rows of a run, and what Prometheus finds at /metrics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from docs.generate.markdown import code, table
from prometheus_client import CollectorRegistry

from tutelage.telemetry import HttpMetrics, TeacherMetrics
from tutelage_client.wire.measures import COUNTED, EVALUATION, LEARNING, WRITING

INTRO = """# Metrics

## Of a run

`GET /v1/runs/{id}/metrics` and `tutelage runs metrics` give one row a step. A name is absent where it does not apply,
and null where there was nothing to measure. Means are over tokens, not over rollouts, unless the unit says so.
"""
PROMETHEUS = """## Of a service

`GET /metrics` of every HTTP service, for Prometheus. A trainer serves no HTTP: what it measures is in the rows above.
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
    parts += [PROMETHEUS, "### Of both services\n", _prometheus(HttpMetrics.of(registry))]
    parts += ["### Of a teacher\n", _prometheus(TeacherMetrics.of(registry))]
    parts.append("`door` is `http` or `queue`; `outcome` is `ok`, `refused`, `failed` or `dropped`.")
    return "\n".join(parts)


def _prometheus(metrics: Any) -> str:
    return table(("name", "type", "labels", "meaning"), _rows(metrics))


def _rows(metrics: Any) -> Iterator[list[str]]:
    for field in fields(metrics):
        collector = getattr(metrics, field.name)
        [described] = collector.describe()
        name = described.name + ("_total" if described.type == "counter" else "")
        labels = ", ".join(map(code, collector._labelnames))  # the library has no public way to ask
        yield [code(name), described.type, labels, described.documentation]
