"""Expressions over the runs that a board shows."""

from __future__ import annotations

WINDOW = "15m"  # rows come once a step, so a rate over less would be peaks and gaps


def of_run(metric: str, *labels: str, **wanted: str) -> str:
    """The metric of the chosen runs. Each of several coordinators tells the same of a run, so the largest is taken."""
    return f"max by ({', '.join(('run_id', *labels))}) ({_chosen(metric, wanted)})"


def rate_of_run(metric: str, *labels: str, **wanted: str) -> str:
    return f"max by ({', '.join(('run_id', *labels))}) (rate({_chosen(metric, wanted)}[{WINDOW}]))"


def _chosen(metric: str, wanted: dict[str, str]) -> str:
    matchers = ['run_id=~"$run_id"', *(f'{label}="{value}"' for label, value in wanted.items())]
    return f"{metric}{{{', '.join(matchers)}}}"


def since(metric: str) -> str:
    return f"time() - {of_run(metric)}"
