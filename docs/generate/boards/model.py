"""What a board is, in our words; grafana.py says it in Grafana's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["lines", "numbers", "states", "table"]


@dataclass(frozen=True)
class Query:
    """legend: what a series is called, with its labels in braces; of a table the name of a column"""

    expr: str
    legend: str


@dataclass(frozen=True)
class Limit:
    """From this value on a panel has this colour. Where an alert has the same number, it is the alert's."""

    value: float
    colour: Literal["green", "orange", "red"]


@dataclass(frozen=True)
class Panel:
    """unit: as Grafana calls it; least, most: the ends of the axis, where known; words: of the values 0 and 1"""

    title: str
    says: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = "lines"
    limits: tuple[Limit, ...] = ()
    least: float | None = None
    most: float | None = None
    stacked: bool = False
    words: tuple[str, str] | None = None
    units: tuple[tuple[str, str], ...] = ()  # of a table's columns


@dataclass(frozen=True)
class Row:
    """Panels that share the width, four side by side at most."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice of some or all values of a label; `name` is the label."""

    name: str
    title: str
    of: str


@dataclass(frozen=True)
class Board:
    """name: of its file, and what its address ends in"""

    name: str
    title: str
    says: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
