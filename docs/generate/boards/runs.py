"""The board of runs: how far they are, where their time goes, what they learn, what became of their text."""

from __future__ import annotations

from docs.generate.boards.learning import LEARNING, TEXT
from docs.generate.boards.model import Board, Limit, Panel, Query, Row, Variable
from docs.generate.boards.selecting import of_run, rate_of_run, since

AT_A_GLANCE = Row(
    "At a glance",
    (
        Panel(
            "Runs that have not ended",
            "One line a run. One that has ended leaves the board; the dashboard and `tutelage runs ls` have it.",
            (
                Query(
                    "max by (run_id, project, student, method) "
                    '(tutelage_run_info{run_id=~"$run_id"}) * on (run_id) group_left () '
                    f"{of_run('tutelage_run_step')}",
                    "step",
                ),
                Query(of_run("tutelage_run_steps"), "of"),
                Query(of_run("tutelage_run_epoch"), "attempt"),
                Query(of_run("tutelage_run_crashes_total"), "crashes"),
                Query(since("tutelage_run_reported_timestamp_seconds"), "since a step"),
                Query(since("tutelage_run_checkpoint_timestamp_seconds"), "since a checkpoint"),
                Query(of_run("tutelage_run_teacher_tokens_total"), "teacher tokens"),
                Query(of_run("tutelage_run_teacher_cost_usd_total"), "teacher cost"),
            ),
            kind="table",
            units=(("since a step", "s"), ("since a checkpoint", "s"), ("teacher cost", "currencyUSD")),
        ),
    ),
)
PROGRESS = Row(
    "Progress",
    (
        Panel(
            "Steps done",
            "The share of the planned steps.",
            (Query(f"{of_run('tutelage_run_step')} / {of_run('tutelage_run_steps')}", "{{run_id}}"),),
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Since a step, and since a sign of life",
            "Since the newest row, and since the trainer's last heartbeat. RunStandsStill fires where no step comes.",
            (
                Query(since("tutelage_run_reported_timestamp_seconds"), "{{run_id}} step"),
                Query(since("tutelage_run_heartbeat_timestamp_seconds"), "{{run_id}} heartbeat"),
            ),
            "s",
            least=0,
        ),
        Panel(
            "Steps that a crash would cost",
            "Steps since the newest checkpoint.",
            (Query(f"{of_run('tutelage_run_step')} - {of_run('tutelage_run_checkpoint_step')}", "{{run_id}}"),),
            least=0,
        ),
        Panel(
            "Seconds of a checkpoint",
            "How long the newest took to write; learning stands still meanwhile.",
            (Query(of_run("tutelage_run_checkpoint_duration_seconds"), "{{run_id}}"),),
            "s",
            least=0,
        ),
        Panel(
            "Size of a checkpoint",
            "Of the newest. DiskFull fires where less is free than the largest takes.",
            (Query(of_run("tutelage_run_checkpoint_size_bytes"), "{{run_id}}"),),
            "bytes",
            least=0,
        ),
        Panel(
            "Checkpoints refused in an hour",
            "Tries to save a run that the disk refused. The run goes on for a while, then waits.",
            (
                Query(
                    'max by (run_id) (increase(tutelage_run_checkpoint_failures_total{run_id=~"$run_id"}[1h]))',
                    "{{run_id}}",
                ),
            ),
            limits=(Limit(1, "red"),),
            least=0,
        ),
    ),
)
STATE = Row(
    "State",
    (
        Panel(
            "Status",
            "What each run is in, over time.",
            (Query(f"{of_run('tutelage_run_status', 'status')} == 1", "{{run_id}} {{status}}"),),
            kind="states",
            words=("", "in it"),
            limits=(Limit(1, "green"),),
        ),
        Panel(
            "Conditions",
            "What a run needs: its teachers, the queue, samplers, a fresh checkpoint.",
            (Query(of_run("tutelage_run_condition", "condition"), "{{run_id}} {{condition}}"),),
            kind="states",
            words=("no", "yes"),
            limits=(Limit(1, "green"),),
        ),
    ),
)
TIME = Row(
    "Where the time goes",
    (
        Panel(
            "Phases of a step",
            "Shares of the wall clock: writing the text, waiting for the last score, learning, evaluation, saving. "
            "Mostly waiting: the teacher is too slow. What is missing to 100 % is standing still.",
            (Query(rate_of_run("tutelage_run_phase_seconds_total", "phase"), "{{run_id}} {{phase}}"),),
            "percentunit",
            stacked=True,
            least=0,
        ),
        Panel(
            "Tokens a second",
            "Completion tokens learned on, and tokens that teachers computed for it; cached ones cost nothing.",
            (
                Query(rate_of_run("tutelage_run_student_tokens_total"), "{{run_id}} student"),
                Query(rate_of_run("tutelage_run_teacher_tokens_total"), "{{run_id}} teacher"),
            ),
            least=0,
        ),
        Panel(
            "Dollars of teachers an hour",
            "By the prices that they told. Nothing where none has a price.",
            (Query(f"3600 * {rate_of_run('tutelage_run_teacher_cost_usd_total')}", "{{run_id}}"),),
            "currencyUSD",
            least=0,
        ),
        Panel(
            "Tokens of steps a second",
            "Of prompts and of completions, and of these what was learned from. Far apart: scores are missing.",
            (Query(rate_of_run("tutelage_run_tokens_total", "kind"), "{{run_id}} {{kind}}"),),
            least=0,
        ),
        Panel(
            "Rollouts by their age",
            "A second, by the policy versions that lay between writing and their turn, stale ones too.",
            (Query(rate_of_run("tutelage_run_rollouts_at_lag_total", "lag"), "{{run_id}} {{lag}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Policy versions between writing and learning",
            "0 is on-policy. The spec's `rollout.max_lag` bounds it.",
            (Query(of_run("tutelage_train_lag_versions", "stat"), "{{run_id}} {{stat}}"),),
            "none",
            least=0,
        ),
    ),
)
RUNS = Board(
    "runs",
    "Tutelage: runs",
    "Runs that have not ended: progress, where time goes, what is learned. The dashboard has every step of a run.",
    (AT_A_GLANCE, PROGRESS, STATE, TIME, LEARNING, TEXT),
    (Variable("run_id", "Run", "tutelage_run_info"),),
)
