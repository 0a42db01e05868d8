"""Log lines are JSON and keep what was said to them to themselves."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from tutelage.telemetry import CoordinatorMetrics, JsonLines, TeacherMetrics, describe_error
from tutelage_client.wire import RewardItem, Usage


def line(message: str, *args: object, extra: dict[str, object] | None = None, error: bool = False) -> dict[str, object]:
    info = sys.exc_info() if error else None
    record = logging.getLogger("x").makeRecord("x", logging.WARNING, "f", 1, message, args, info, extra=extra)
    return json.loads(JsonLines("teacher").format(record))


def test_a_line_has_time_level_service_message_and_what_was_added() -> None:
    told = line("took %d", 3, extra={"job": "a", "tokens": 7})
    assert told.pop("time")
    assert told == {"level": "warning", "service": "teacher", "message": "took 3", "job": "a", "tokens": 7}


def test_an_error_is_told_in_one_line_with_its_place() -> None:
    told: dict[str, object] = {}
    try:
        int("first\nsecond")
    except ValueError:
        told = line("failed", error=True)
    assert told["error"] == "ValueError"
    assert "first" in str(told["reason"])
    assert "test_telemetry.py" in str(told["where"])


def test_a_validation_error_does_not_quote_what_it_was_given() -> None:
    with pytest.raises(ValidationError) as caught:
        RewardItem.model_validate({"prompt": "a prompt", "completion": ["the secret"]})
    assert "secret" in str(caught.value)
    assert "secret" not in json.dumps(describe_error(caught.value))


def test_two_teachers_in_one_process_count_apart() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    one, _ = (TeacherMetrics.of(registry) for registry in registries)
    one.spent(Usage(scored_tokens=5, forward_tokens=9).model_dump())
    values = [registry.get_sample_value("tutelage_teacher_forward_tokens_total") for registry in registries]
    assert values == [9.0, 0.0]


def test_what_may_happen_is_counted_from_zero() -> None:
    """A series that begins with its first event hides it from a rate."""
    registry = CollectorRegistry()
    CoordinatorMetrics.of(registry)
    TeacherMetrics.of(registry)
    for name, label, value in (
        ("tutelage_fenced_writes_total", "what", "steps"),
        ("tutelage_teacher_refused_scores_total", "reason", "nan"),
    ):
        assert registry.get_sample_value(name, {label: value}) == 0
    for name in ("leases_lost_total", "sse_dropped_total", "sse_clients"):
        assert registry.get_sample_value(f"tutelage_{name}") == 0
