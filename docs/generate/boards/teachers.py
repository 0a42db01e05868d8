"""The board of teachers: each measure as the mean of the replicas, and beside it the worst one by name."""

from __future__ import annotations

from docs.generate.boards.model import Board, Limit, Panel, Query, Row

RATE = "[$__rate_interval]"


def rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{RATE}))"


def slowest_tenth(histogram: str, by: str) -> str:
    return f"histogram_quantile(0.9, {rate(f'{histogram}_bucket', f'{by}, le')})"


def side_by_side(
    title: str, says: str, mean: str, each: str, unit: str = "short", limit: Limit | None = None
) -> tuple[Panel, Panel]:
    """mean: of the replicas of a teacher; each: of every replica, of which the largest is shown"""
    limits = () if limit is None else (limit,)
    worst = Query(f"topk(1, {each})", "{{instance}}")
    return (
        Panel(f"{title}, mean", says, (Query(mean, "{{job}}"),), unit, limits=limits, least=0),
        Panel(
            f"{title}, worst replica",
            "The same of the replica where it is largest.",
            (worst,),
            unit,
            limits=limits,
            least=0,
        ),
    )


def failing(by: str) -> str:
    """0 where none has failed yet, of which there is no series then."""
    failed = rate('tutelage_teacher_requests_total{outcome="failed"}', by)
    everything = rate("tutelage_teacher_requests_total", by)
    return f"({failed} or 0 * {everything}) / {everything}"


WAIT = "tutelage_teacher_queue_wait_seconds"
CALL = "tutelage_teacher_score_seconds"
THERE = Row(
    "Who is there",
    (
        Panel(
            "Replicas that answer",
            "How many Prometheus reaches. TeacherAway fires at none.",
            (Query('sum(up{job="teacher"})', "replicas"),),
            kind="numbers",
            limits=(Limit(1, "green"),),
        ),
        Panel(
            "Tokens scored a second",
            "Of each replica, one above the other.",
            (Query(rate("tutelage_teacher_scored_tokens_total", "instance"), "{{instance}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Requests a second",
            "By HTTP and by queue, and how they end. Refused are the caller's errors, failed the teacher's.",
            (Query(rate("tutelage_teacher_requests_total", "door, outcome"), "{{door}} {{outcome}}"),),
            "reqps",
            stacked=True,
            least=0,
        ),
    ),
)
MEAN_AND_WORST = Row(
    "Mean and worst replica",
    (
        *side_by_side(
            "Share that fails",
            "Of all requests. TeacherFails fires at one in twenty; TeacherBudgetBurns holds them to one in a hundred.",
            failing("job"),
            failing("instance"),
            "percentunit",
            Limit(0.05, "orange"),
        ),
        *side_by_side(
            "Wait before the engine",
            "Nine questions in ten wait less inside a teacher. TeacherOverloaded fires at 30 s.",
            slowest_tenth(WAIT, "job"),
            slowest_tenth(WAIT, "instance"),
            "s",
            Limit(30, "orange"),
        ),
        *side_by_side(
            "An engine call",
            "Nine calls in ten take less.",
            slowest_tenth(CALL, "job"),
            slowest_tenth(CALL, "instance"),
            "s",
        ),
        *side_by_side(
            "Tokens that wait",
            "Taken in and not yet in a batch.",
            "avg by (job) (tutelage_teacher_waiting_tokens)",
            "tutelage_teacher_waiting_tokens",
        ),
        *side_by_side(
            "Tokens in the engine",
            "Being computed now.",
            "avg by (job) (tutelage_teacher_in_flight_tokens)",
            "tutelage_teacher_in_flight_tokens",
        ),
    ),
)
WORK = Row(
    "What it costs",
    (
        Panel(
            "Where tokens come from",
            "A second: through the model, out of a cache, written by the teacher.",
            (
                Query(f"sum(rate(tutelage_teacher_forward_tokens_total{RATE}))", "through the model"),
                Query(f"sum(rate(tutelage_teacher_cached_tokens_total{RATE}))", "cached"),
                Query(f"sum(rate(tutelage_teacher_generated_tokens_total{RATE}))", "written"),
            ),
            stacked=True,
            least=0,
        ),
        Panel(
            "Tokens of an engine call",
            "The mean. Small ones leave a GPU idle.",
            (
                Query(
                    f"{rate('tutelage_teacher_batch_tokens_sum', 'instance')}"
                    f" / {rate('tutelage_teacher_batch_tokens_count', 'instance')}",
                    "{{instance}}",
                ),
            ),
            least=0,
        ),
        Panel(
            "Score cache",
            "Completions a second that were kept, asked once for several, or not there.",
            (Query(rate("tutelage_teacher_score_cache_completions_total", "outcome"), "{{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Size of the score cache",
            "In memory and in its file.",
            (Query("sum by (place) (tutelage_teacher_score_cache_bytes)", "{{place}}"),),
            "bytes",
            least=0,
        ),
        Panel(
            "Dollars an hour",
            "What the work of all teachers costs, by the prices that they are told.",
            (Query(f"3600 * sum(rate(tutelage_teacher_cost_usd_total{RATE}))", "all"),),
            "currencyUSD",
            least=0,
        ),
        Panel(
            "Tokens spent by account",
            "Of each key and run, restarts included.",
            (Query("topk(10, max by (account) (tutelage_teacher_spent_tokens))", "{{account}}"),),
            least=0,
        ),
        Panel(
            "Dollars spent by account",
            "The same in dollars.",
            (Query("topk(10, max by (account) (tutelage_teacher_spent_usd))", "{{account}}"),),
            "currencyUSD",
            least=0,
        ),
    ),
)
TRUST = Row(
    "Whether to believe it",
    (
        Panel(
            "Canaries that failed in an hour",
            "A known question that got another answer than before. TeacherAnswersOtherwise fires at the first.",
            (
                Query(
                    'sum by (instance) (increase(tutelage_teacher_canaries_total{outcome="failed"}[1h]))',
                    "{{instance}}",
                ),
            ),
            limits=(Limit(1, "red"),),
            least=0,
        ),
        Panel(
            "Scores refused in an hour",
            "Answers of the engine that cannot be: no number, above probability 1, of another length, of other tokens.",
            (Query("sum by (reason) (increase(tutelage_teacher_refused_scores_total[1h]))", "{{reason}}"),),
            limits=(Limit(1, "orange"),),
            least=0,
        ),
    ),
)
UPSTREAMS = Row(
    "Upstreams",
    (
        Panel(
            "Taking work",
            "Of a teacher with several. UpstreamAway fires at the first that does not.",
            (Query("min by (replica) (tutelage_teacher_replica_up)", "{{replica}}"),),
            kind="states",
            words=("away", "there"),
            limits=(Limit(1, "green"),),
        ),
        Panel(
            "What befell them in an hour",
            "Failures, quarantines, returns, and questions that were asked twice because the first was slow.",
            (
                Query(
                    'sum by (replica, event) (increase(tutelage_teacher_replica_events_total{event!="asked"}[1h]))',
                    "{{replica}} {{event}}",
                ),
            ),
            least=0,
        ),
        Panel(
            "Circuit breaker",
            "Open: nothing is sent there until a probe succeeds. BreakerOpen fires after five minutes.",
            (Query("1 - max by (upstream) (tutelage_teacher_breaker_open)", "{{upstream}}"),),
            kind="states",
            words=("open", "closed"),
            limits=(Limit(1, "green"),),
        ),
        Panel(
            "Calls at once",
            "The most that a teacher sends to its upstream; it falls where that is slow or refuses.",
            (Query("min by (upstream) (tutelage_teacher_concurrency_limit)", "{{upstream}}"),),
            least=0,
        ),
    ),
)
TEACHERS = Board(
    "teachers",
    "Tutelage: teachers",
    "What teachers do, cost and suffer: the mean of the replicas, and the worst one beside it.",
    (THERE, MEAN_AND_WORST, WORK, TRUST, UPSTREAMS),
)
