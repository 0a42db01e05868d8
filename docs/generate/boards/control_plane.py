"""The board of the control plane: the coordinators, what they hold, and what they caught."""

from __future__ import annotations

from docs.generate.boards.model import Board, Limit, Panel, Query, Row

REQUESTS = 'tutelage_http_requests_total{job="coordinator"}'
FAILED = 'tutelage_http_requests_total{job="coordinator", status=~"5.."}'
SECONDS = 'tutelage_http_request_seconds_bucket{job="coordinator"}'
RATE = "[$__rate_interval]"


def slowest(share: float, *labels: str) -> str:
    return f"histogram_quantile({share}, sum by ({', '.join(('le', *labels))}) (rate({SECONDS}{RATE})))"


ANSWERS = Row(
    "How they answer",
    (
        Panel(
            "Coordinators",
            "How many Prometheus reaches.",
            (Query('sum(up{job="coordinator"})', "coordinators"),),
            kind="numbers",
            limits=(Limit(1, "green"),),
        ),
        Panel(
            "Database",
            "Whether the coordinators reach it. Where they do not, nothing is told of runs.",
            (Query("min(tutelage_database_up)", "database"),),
            kind="numbers",
            limits=(Limit(1, "green"),),
            words=("away", "there"),
        ),
        Panel(
            "Requests a second",
            "By status. 503: the database does not answer. 409: a trainer lost its run, or a change was late.",
            (Query(f"sum by (status) (rate({REQUESTS}{RATE}))", "{{status}}"),),
            "reqps",
            stacked=True,
            least=0,
        ),
        Panel(
            "Share of errors",
            "Answers from 500 on. CoordinatorFails fires at one in twenty.",
            (Query(f"(sum(rate({FAILED}{RATE})) or vector(0)) / sum(rate({REQUESTS}{RATE}))", "errors"),),
            "percentunit",
            limits=(Limit(0.05, "red"),),
            least=0,
        ),
    ),
)
TIME = Row(
    "How soon they answer",
    (
        Panel(
            "Seconds to answer",
            "Half, and 99 in a hundred, are answered within; event streams, which stay open, are in it.",
            (Query(slowest(0.5), "half"), Query(slowest(0.99), "99 %")),
            "s",
            least=0,
        ),
        Panel(
            "The slowest routes",
            "The five where one answer in ten takes longest.",
            (Query(f"topk(5, {slowest(0.9, 'method', 'route')})", "{{method}} {{route}}"),),
            "s",
            least=0,
        ),
        Panel(
            "Seconds to scrape",
            "The coordinator asks database and queue as it is scraped.",
            (Query('scrape_duration_seconds{job="coordinator"}', "{{instance}}"),),
            "s",
            least=0,
        ),
    ),
)
HELD = Row(
    "What they hold",
    (
        Panel(
            "Runs by status",
            "All runs, those that have ended too. Many queued: add trainers.",
            (Query("max by (status) (tutelage_runs)", "{{status}}"),),
            least=0,
        ),
        Panel(
            "Free share of the data directory",
            "Where checkpoints, models and uploads are. DiskFull fires at a tenth, or with no room for a checkpoint.",
            (Query("min(tutelage_artefacts_free_bytes / tutelage_artefacts_size_bytes)", "free"),),
            "percentunit",
            limits=(Limit(0.1, "green"),),
            least=0,
            most=1,
        ),
        Panel(
            "Readers of event streams",
            "Dashboards and clients that follow runs.",
            (Query("sum(tutelage_sse_clients)", "readers"),),
            least=0,
        ),
        Panel(
            "Readers sent away in an hour",
            "Their key was revoked or expired.",
            (Query("sum(increase(tutelage_sse_dropped_total[1h]))", "sent away"),),
            least=0,
        ),
    ),
)
CAUGHT = Row(
    "What they caught",
    (
        Panel(
            "Leases lost in an hour",
            "Trainers that fell silent, so that their runs were given to others. LeasesLost fires at three.",
            (Query("sum(increase(tutelage_leases_lost_total[1h]))", "lost"),),
            limits=(Limit(3, "orange"),),
            least=0,
        ),
        Panel(
            "Fenced writes in an hour",
            "What a trainer wrote to a run that it no longer had; refused. WritesFenced fires at the first.",
            (Query("sum by (what) (increase(tutelage_fenced_writes_total[1h]))", "{{what}}"),),
            limits=(Limit(1, "orange"),),
            least=0,
        ),
        Panel(
            "Teachers on the list",
            "Whether each was heard of within 20 seconds.",
            (Query("max by (teacher) (tutelage_teacher_available)", "{{teacher}}"),),
            kind="states",
            words=("away", "there"),
            limits=(Limit(1, "green"),),
        ),
    ),
)
CONTROL_PLANE = Board(
    "control-plane",
    "Tutelage: control plane",
    "How the coordinators answer, what they hold, and which faults of others they caught.",
    (ANSWERS, TIME, HELD, CAUGHT),
)
