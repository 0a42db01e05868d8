"""Every series that is told of runs and of the fleet, as data: its type, its labels, its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

Kind = Literal["gauge", "counter"]


class Family(NamedTuple):
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """One value. labels: in the order of the family's"""

    family: str
    labels: tuple[str, ...]
    value: float


def _run(kind: Kind, meaning: str, *labels: str) -> Family:
    return Family(kind, meaning, ("run_id", *labels))


RUNS = {
    "tutelage_run_info": _run(
        "gauge", "1; whose run it is, the student's model, the kind of its objective", "project", "student", "method"
    ),
    "tutelage_run_status": _run("gauge", "1 for the status that it has, 0 for the others that are not final", "status"),
    "tutelage_run_step": _run("gauge", "Optimiser steps done"),
    "tutelage_run_steps": _run("gauge", "Optimiser steps of the spec"),
    "tutelage_run_epoch": _run("gauge", "Attempts so far"),
    "tutelage_run_crashes_total": _run("counter", "Attempts that crashed"),
    "tutelage_run_condition": _run("gauge", "1 where a condition holds, while a trainer has the run", "condition"),
    "tutelage_run_heartbeat_timestamp_seconds": _run("gauge", "Last heartbeat, while a trainer has the run"),
    "tutelage_run_reported_timestamp_seconds": _run("gauge", "When the last row was reported"),
    "tutelage_run_checkpoint_timestamp_seconds": _run("gauge", "When the newest checkpoint was committed"),
    "tutelage_run_checkpoint_step": _run("gauge", "Steps in the newest checkpoint"),
    "tutelage_run_checkpoint_size_bytes": _run("gauge", "Size of the newest checkpoint"),
    "tutelage_run_checkpoint_duration_seconds": _run("gauge", "How long the newest checkpoint took to write"),
    "tutelage_run_checkpoint_failures_total": _run("counter", "Tries to save the run that the disk refused"),
    "tutelage_run_teacher_tokens_total": _run("counter", "Tokens that teachers computed or wrote"),
    "tutelage_run_student_tokens_total": _run("counter", "Completion tokens learned on"),
    "tutelage_run_teacher_cost_usd_total": _run("counter", "What teachers cost in dollars, where one has a price"),
    "tutelage_run_rollouts_submitted_total": _run("counter", "Rollouts written, or read"),
    "tutelage_run_rollouts_total": _run(
        "counter", "Rollouts by outcome: trained, stale, dead_lettered, skipped, dropped", "outcome"
    ),
    "tutelage_run_rollouts_at_lag_total": _run(
        "counter", "Rollouts of the student by their age in versions when their turn came: 0 to 64, or 65+", "lag"
    ),
    "tutelage_run_tokens_total": _run(
        "counter", "Tokens of steps by kind: prompt, response, and of these trained on", "kind"
    ),
    "tutelage_run_rollouts_queued": _run("gauge", "Rollouts under way at the last row"),
    "tutelage_run_phase_seconds_total": _run(
        "counter",
        "Seconds by phase: of steps write (until the last rollout), wait (until the last score) and learn; beside them "
        "evaluate and checkpoint",
        "phase",
    ),
    "tutelage_run_nonfinite_steps_total": _run(
        "counter", "Steps whose loss or gradient norm was not finite, or that learned from nothing"
    ),
    "tutelage_train_loss": _run("gauge", "`loss` of the last row"),
    "tutelage_train_reverse_kl_nats": _run(
        "gauge", "`reverse_kl` of the last row, and of its tokens p10, p90 and max", "stat"
    ),
    "tutelage_train_log_ratio_nats": _run(
        "gauge",
        "`log_ratio` of the last row: the mean at place all, p10, p50 and p90 by place in the completion",
        "stat",
        "place",
    ),
    "tutelage_train_entropy_nats": _run("gauge", "`student_entropy` and `teacher_entropy` of the last row", "model"),
    "tutelage_train_grad_norm": _run("gauge", "`grad_norm` of the last row"),
    "tutelage_train_accuracy": _run("gauge", "`accuracy` of the last evaluation"),
    "tutelage_train_reward": _run("gauge", "`reward` of the last row"),
    "tutelage_train_top_k_overlap_ratio": _run("gauge", "`top_k_overlap` of the last row"),
    "tutelage_train_support_mass_ratio": _run(
        "gauge", "`student_support_mass` and `teacher_support_mass` of the last row", "model"
    ),
    "tutelage_train_lag_versions": _run("gauge", "`lag` and `lag_max` of the last row", "stat"),
    "tutelage_train_length_tokens": _run("gauge", "`length` of the last row"),
    "tutelage_train_truncated_ratio": _run("gauge", "`truncated` of the last row"),
    "tutelage_train_learned_ratio": _run("gauge", "`learned_fraction` of the last row"),
}

FLEET = {
    "tutelage_database_up": Family("gauge", "1 where the database answers; without it nothing is told of runs"),
    "tutelage_runs": Family("gauge", "Runs by status, those that have ended too", ("status",)),
    "tutelage_teacher_available": Family("gauge", "1 where a registered teacher was heard of", ("teacher",)),
    "tutelage_queue_up": Family("gauge", "1 where the queue answers within a second"),
    "tutelage_queue_depth": Family("gauge", "Jobs that wait", ("teacher",)),
    "tutelage_queue_pending": Family("gauge", "Jobs that are given out and not acknowledged", ("teacher",)),
    "tutelage_queue_oldest_age_seconds": Family("gauge", "Age of the oldest of both; 0 without any", ("teacher",)),
    "tutelage_queue_redeliveries_total": Family(
        "counter", "Deliveries that were not the first of their job", ("teacher",)
    ),
    "tutelage_queue_duplicates_dropped_total": Family(
        "counter", "Answers that took no effect: their job had ended, or another teacher had it by then", ("teacher",)
    ),
    "tutelage_queue_dead_letters_total": Family("counter", "Jobs that were given up", ("teacher",)),
    "tutelage_dead_letters": Family("gauge", "Jobs that were given up and are kept", ("teacher",)),
    "tutelage_redis_memory_bytes": Family("gauge", "Memory that the queue's server uses"),
    "tutelage_redis_memory_limit_bytes": Family("gauge", "The most that it may use, where it has a limit"),
    "tutelage_artefacts_size_bytes": Family("gauge", "Size of the file system of the data directory"),
    "tutelage_artefacts_free_bytes": Family("gauge", "What is free there"),
}

_FAMILIES = RUNS | FLEET
_METRICS = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}


def grouped(samples: Iterable[Sample]) -> list[CounterMetricFamily | GaugeMetricFamily]:
    """Raises: KeyError: a sample of no family."""
    found: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for name, labels, value in samples:
        if name not in found:
            family = _FAMILIES[name]
            found[name] = _METRICS[family.kind](name, family.meaning, labels=family.labels)
        found[name].add_metric(labels, value)
    return list(found.values())
