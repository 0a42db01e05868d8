"""What /metrics tells, as a table."""

from __future__ import annotations

import httpx2
from prometheus_client.parser import text_string_to_metric_families

Key = tuple[str, frozenset[tuple[str, str]]]


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
