"""What the charts of a run show, as data: the page, its tables and its script all follow this table."""

from __future__ import annotations

from typing import Literal, NamedTuple

Tone = Literal["student", "teacher", "band", "plain", "second", "third", "fourth"]


class Line(NamedTuple):
    """One line of a chart. column: of `history.COLUMNS` or derived from them; right: on the axis on the right."""

    column: str
    label: str
    tone: Tone = "plain"
    right: bool = False


class Chart(NamedTuple):
    """empty: what to say while nothing was measured; kind: lines, or bars that add up."""

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    empty: str = "Nothing measured."
    kind: Literal["lines", "stack"] = "lines"


CHARTS = (
    Chart(
        "kl",
        "Reverse KL",
        "nats; band from p10 to p90 of the tokens",
        (
            Line("reverse_kl", "mean"),
            Line("reverse_kl_p10", "p10", "band"),
            Line("reverse_kl_p90", "p90", "band"),
        ),
        "No step has measured it. Runs without a teacher have none.",
    ),
    Chart(
        "accuracy",
        "Accuracy",
        "mean reward, held out",
        (Line("accuracy", "accuracy"),),
        "No evaluation has been graded. It takes data.eval and a grader.",
    ),
    Chart(
        "entropy",
        "Entropy",
        "nats per token",
        (Line("student_entropy", "student", "student"), Line("teacher_entropy", "teacher", "teacher")),
    ),
    Chart(
        "length",
        "Length",
        "tokens",
        (Line("length", "mean"), Line("truncated", "truncated", "second", right=True)),
    ),
    Chart("grad", "Gradient norm", "before it is bounded", (Line("grad_norm", "norm"),)),
    Chart("rate", "Speed", "tokens per second", (Line("tokens_per_s", "tokens/s"),)),
)

WAITS = Chart(
    "waits",
    "Who waits for whom",
    "seconds of each step and beside it",
    (
        Line("writing_s", "student writes", "student"),
        Line("wait_s", "trainer waits for the teacher", "teacher"),
        Line("learn_s", "student learns", "second"),
        Line("eval_s", "evaluation", "third"),
        Line("checkpoint_s", "saving, since the step before", "fourth"),
    ),
    kind="stack",
)

ALL = (*CHARTS, WAITS)
