"""How things look: aligned tables, relative times, sensible digits, or JSON where it was asked for."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

Column = Literal["left", "right", "wrap"]  # a `wrap` column gives way where a terminal is narrow, the others do not
Cell = str | Text
NOTHING = "-"
PIPE_WIDTH = 10_000  # lines that another program reads are never broken
STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "red",
    "running": "cyan",
    "paused": "yellow",
    "pausing": "yellow",
    "recovering": "yellow",
    "cancelling": "yellow",
    "warning": "yellow",
    "error": "red",
    "yes": "green",
    "no": "red",
    "built": "green",
    "holds": "green",
    "broken": "red",
}


def console() -> Console:
    """Standard output; plain text of any width when it is no terminal."""
    is_terminal = sys.stdout.isatty()
    width = None if is_terminal else PIPE_WIDTH
    return Console(width=width, force_terminal=is_terminal, markup=False, emoji=False, highlight=False)


def can_move() -> bool:
    """Whether a line may be written over: on a terminal that knows how."""
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def say(*parts: Cell) -> None:
    console().print(*parts, soft_wrap=True)


def document(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(plain(value), ensure_ascii=False, indent=2, allow_nan=False))


def line(value: Any) -> None:
    """One JSON object on a line of its own, sent at once."""
    print(json.dumps(plain(value), ensure_ascii=False, allow_nan=False), flush=True)


def plain(value: Any) -> Any:
    """Models as JSON values, also inside lists and mappings."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def table(columns: Mapping[str, Column], rows: Iterable[Sequence[Cell]]) -> None:
    grid = Table(box=None, pad_edge=False, header_style="bold")
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = _widths(columns, cells, console().width)
    for name, kind in columns.items():
        justify = "right" if kind == "right" else "left"
        grid.add_column(name, justify=justify, no_wrap=kind != "wrap", overflow="fold", width=widths.get(name))
    for row in cells:
        grid.add_row(*row)
    _print(grid)


def _widths(columns: Mapping[str, Column], cells: Sequence[Sequence[Cell]], room: int) -> dict[str, int]:
    """Of columns that wrap: what the others leave them, shared so that no word is broken; none where there is no room.

    room: columns of the terminal; two of them part a column from the next
    """
    texts = {name: [name, *(str(row[index]) for row in cells)] for index, name in enumerate(columns)}
    full = {name: max(map(cell_len, found)) for name, found in texts.items()}
    wrapping = [name for name, kind in columns.items() if kind == "wrap"]
    widths = {name: max(cell_len(word) for found in texts[name] for word in found.split()) for name in wrapping}
    fixed = sum(full[name] for name in columns if name not in widths)
    left = room - fixed - 2 * (len(columns) - 1) - sum(widths.values())
    if left < 0:
        return {}
    for index, name in enumerate(wrapping):
        more = min(full[name] - widths[name], left // (len(wrapping) - index))
        widths[name], left = widths[name] + more, left - more
    return widths


def _print(grid: Table) -> None:
    """Aligned; without the blanks at the ends of lines where a program reads them."""
    screen = console()
    if screen.is_terminal:
        screen.print(grid)
        return
    with screen.capture() as captured:
        screen.print(grid)
    for row in captured.get().splitlines():
        print(row.rstrip())


def facts(pairs: Iterable[tuple[str, Cell | None]]) -> None:
    """Names and values, one pair a line; a pair without a value is left out."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value is not None:
            grid.add_row(name, clean(value))
    _print(grid)


def clean(cell: Cell) -> Cell:
    """Without control characters: what a service says may not steer the terminal."""
    if isinstance(cell, Text):
        return cell
    return "".join(c if c.isprintable() else " " for c in cell)


def styled(word: str) -> Text:
    """A status or level in its colour."""
    return Text(word, style=STYLES.get(word, ""))


def number(value: float | None) -> str:
    """Three or four digits that matter; whole numbers in full."""
    if value is None:
        return NOTHING
    size = abs(value)
    if value == int(value) and size < 1e15:
        return f"{int(value):,}"
    if size >= 1000:
        return f"{value:,.0f}"
    decimals = 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 1 else 4
    return f"{value:.{decimals}f}" if size >= 1e-3 else f"{value:.1e}"


def count(value: float) -> str:
    """A large number in a few characters: 950, 12.3k, 4.56M."""
    if value < 10_000:
        return f"{value:,.0f}"
    power = min(4, int(math.log10(value)) // 3)
    return f"{value / 1000**power:.4g}{'_kMGT'[power]}"


def span(seconds: float) -> str:
    """A duration for people: 42 s, 3 min 12 s, 1 h 04 min, 2 days 3 h."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} days {hours % 24} h"


def ago(moment: datetime, now: datetime | None = None) -> str:
    """How long ago in one unit: just now, 20 s ago, 3 min ago, 5 h ago, 12 days ago."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < 5:
        return "just now"
    for size, unit, below in ((1, "s", 60), (60, "min", 3600), (3600, "h", 48 * 3600)):
        if seconds < below:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds // 86400)} days ago"


def moment(at: datetime) -> str:
    """A point in time on the clock of this machine, to the second."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"
