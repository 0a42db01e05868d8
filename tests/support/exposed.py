"""What /metrics tells, as a table; and a row from which all of it can be told of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from tutelage_client.wire import StepReport

Key = tuple[str, frozenset[tuple[str, str]]]


ROW: dict[str, float | None] = {
    "loss": 0.5,
    "reverse_kl": 0.25,
    "reverse_kl_p10": -0.5,
    "reverse_kl_p90": 1.75,
    "reverse_kl_max": 6.0,
    "log_ratio": -0.25,
    "log_ratio_p10/0-15": -2.0,
    "log_ratio_p50/0-15": -0.5,
    "log_ratio_p90/1024+": 0.125,
    "student_entropy": 1.5,
    "teacher_entropy": 1.0,
    "grad_norm": 3.0,
    "top_k_overlap": 0.75,
    "student_support_mass": 0.875,
    "teacher_support_mass": 0.9375,
    "tokens": 96.0,
    "prompt_tokens": 40.0,
    "learned_tokens": 90.0,
    "rollouts_at_lag/0": 5.0,
    "rollouts_at_lag/3": 4.0,
    "lag": 0.5,
    "lag_max": 2.0,
    "length": 96.0,
    "truncated": 0.0625,
    "learned_fraction": 0.96875,
    "accuracy": 0.625,
    "reward": 0.375,
    "teacher_usd": 0.125,
    "rollouts/submitted": 21.0,
    "rollouts/trained": 8.0,
    "rollouts/stale": 1.0,
    "rollouts/dead_lettered": 2.0,
    "rollouts/skipped": 3.0,
    "rollouts/dropped": 4.0,
    "rollouts/queued": 3.0,
    "seconds": 10.0,
    "wait_s": 2.0,
    "learn_s": 3.0,
    "eval_s": 5.0,
    "checkpoint_s": 1.5,
    "checkpoint_failures": 2.0,
}


def report(epoch: int, step: int, metrics: Mapping[str, float | None], tokens: int = 0) -> StepReport:
    return StepReport(epoch=epoch, step=step, metrics=dict(metrics), student_tokens=tokens, teacher_tokens=10 * tokens)


def parsed(text: str) -> dict[Key, float]:
    """Values by name and labels."""
    families = text_string_to_metric_families(text)
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


class Exposed:
    """One scrape."""

    def __init__(self, text: str) -> None:
        self.values = parsed(text)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.values}

    def value(self, name: str, **labels: str) -> float | None:
        """None: there is no such series."""
        return self.values.get((name, frozenset(labels.items())))

    def about(self, name: str) -> dict[str, float]:
        """Of a family: values by the labels beside the run's id."""
        return {
            " ".join(value for label, value in sorted(labels) if label != "run_id"): told
            for (each, labels), told in self.values.items()
            if each == name
        }


async def scraped(http: httpx2.AsyncClient) -> Exposed:
    answer = await http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return Exposed(answer.text)


async def scraped_until_ended(url: str, run_id: str) -> list[Exposed]:
    """One scrape after the other for as long as the run is told of."""
    found: list[Exposed] = []
    async with httpx2.AsyncClient(base_url=url) as http:
        while (told := await scraped(http)).value("tutelage_run_step", run_id=run_id) is not None:
            found.append(told)
            await asyncio.sleep(0.2)
    return found


def fallen(scrapes: Sequence[Exposed]) -> set[str]:
    """Counters that were less, or gone, in a later scrape."""
    return {
        key[0]
        for before, after in pairwise(scrapes)
        for key, value in before.values.items()
        if key[0].endswith("_total") and not after.values.get(key, -1.0) >= value
    }
