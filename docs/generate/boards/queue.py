"""The board of the queue: what waits for each teacher, what went wrong on the way, and the server behind it."""

from __future__ import annotations

from docs.generate.boards.model import Board, Limit, Panel, Query, Row


def of_teacher(metric: str) -> str:
    """Each of several coordinators tells the same, so the largest is taken."""
    return f"max by (teacher) ({metric})"


BACKLOG = Row(
    "What waits",
    (
        Panel(
            "Not yet given out",
            "Jobs that no teacher has taken. Grows without end: add teachers of that name.",
            (Query(of_teacher("tutelage_queue_depth"), "{{teacher}}"),),
            least=0,
        ),
        Panel(
            "Given out",
            "Jobs that a teacher holds and has not answered.",
            (Query(of_teacher("tutelage_queue_pending"), "{{teacher}}"),),
            least=0,
        ),
        Panel(
            "Age of the oldest",
            "Since it was asked. QueueOld fires at ten minutes.",
            (Query(of_teacher("tutelage_queue_oldest_age_seconds"), "{{teacher}}"),),
            "s",
            limits=(Limit(600, "orange"),),
            least=0,
        ),
    ),
)
FAULTS = Row(
    "What went wrong",
    (
        Panel(
            "Delivered again",
            "Jobs an hour that were not given out for the first time: a teacher died with them, or was too slow.",
            (Query(of_teacher("increase(tutelage_queue_redeliveries_total[1h])"), "{{teacher}}"),),
            least=0,
        ),
        Panel(
            "Answered twice",
            "Answers an hour that took no effect: the job had ended, or another teacher had it by then.",
            (Query(of_teacher("increase(tutelage_queue_duplicates_dropped_total[1h])"), "{{teacher}}"),),
            least=0,
        ),
        Panel(
            "Given up",
            "Jobs an hour that became dead letters. DeadLettersRise fires at the first.",
            (Query(of_teacher("increase(tutelage_queue_dead_letters_total[1h])"), "{{teacher}}"),),
            limits=(Limit(1, "orange"),),
            least=0,
        ),
        Panel(
            "Dead letters",
            "Those that are there. `tutelage queue dead` names them; replay or discard them.",
            (Query(of_teacher("tutelage_dead_letters"), "{{teacher}}"),),
            limits=(Limit(1, "orange"),),
            least=0,
        ),
        Panel(
            "Answers to the queue",
            "Jobs a second, by how they ended at the teachers.",
            (
                Query(
                    'sum by (outcome) (rate(tutelage_teacher_requests_total{door="queue"}[$__rate_interval]))',
                    "{{outcome}}",
                ),
            ),
            stacked=True,
            least=0,
        ),
    ),
)
SERVER = Row(
    "The server",
    (
        Panel(
            "Reached",
            "Whether the coordinator reaches Redis. Where it does not, nothing else of this board is told.",
            (Query("min(tutelage_queue_up)", "queue"),),
            kind="numbers",
            limits=(Limit(1, "green"),),
            words=("away", "there"),
        ),
        Panel(
            "Memory",
            "Of Redis, by its own count, and the most that it may take. Full, it admits no questions.",
            (
                Query("max(tutelage_redis_memory_bytes)", "used"),
                Query("max(tutelage_redis_memory_limit_bytes)", "limit"),
            ),
            "bytes",
            least=0,
        ),
        Panel(
            "Share of the memory",
            "RedisFull fires at four fifths. Nothing where Redis has no limit.",
            (Query("max(tutelage_redis_memory_bytes) / max(tutelage_redis_memory_limit_bytes)", "used"),),
            "percentunit",
            limits=(Limit(0.8, "red"),),
            least=0,
            most=1,
        ),
    ),
)
QUEUE = Board(
    "queue",
    "Tutelage: queue",
    "What waits for each teacher and for how long, dead letters, and the Redis behind it.",
    (BACKLOG, FAULTS, SERVER),
)
