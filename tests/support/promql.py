"""What an expression of PromQL asks for: its selectors, and the labels that are left of them."""

from __future__ import annotations

from dataclasses import dataclass

import promql_parser


@dataclass(frozen=True)
class Asked:
    """selectors: each metric with the labels that it is chosen by; grouped: the labels of all aggregations; added_up:
    metrics of which series are added to each other
    """

    selectors: tuple[tuple[str, frozenset[str]], ...]
    grouped: frozenset[str]
    added_up: frozenset[str]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.selectors}


def asked(expr: str) -> Asked:
    """Of an expression as Grafana or Prometheus has it.

    Raises:
        ValueError: it is no PromQL
    """
    selectors: list[tuple[str, frozenset[str]]] = []
    grouped: set[str] = set()
    added_up: set[str] = set()

    def note(part: promql_parser.Expr) -> None:
        if isinstance(part, promql_parser.VectorSelector):
            assert part.name is not None, f"a selector without a name in {expr}"
            selectors.append((part.name, frozenset(each.name for each in part.matchers.matchers)))
        if isinstance(part, promql_parser.AggregateExpr):
            grouped.update(part.modifier.labels if part.modifier is not None else ())
            if str(part.op) in ("sum", "avg", "count"):
                promql_parser.walk(part.expr, lambda inner: added_up.update(_name(inner)))

    promql_parser.walk(promql_parser.parse(expr.replace("$__rate_interval", "1m")), note)
    return Asked(tuple(selectors), frozenset(grouped), frozenset(added_up))


def _name(part: promql_parser.Expr) -> tuple[str, ...]:
    return (part.name,) if isinstance(part, promql_parser.VectorSelector) and part.name is not None else ()
