"""`python -m benchmarks.page`: committed results as the tables of `docs/performance.md`; a test holds both together."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs/performance.md", ROOT / "docs/results"
Rows = Callable[[dict[str, Any]], list[str]]
Column = tuple[str, Callable[[dict[str, Any]], str]]


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text()))


def filled(page: str) -> str:
    """The page with each table anew, between its two marks; without its file a table says that it was not measured."""
    for mark, rows in TABLES.items():
        found = re.search(between(mark), page, re.DOTALL)
        if found is None:
            raise SystemExit(f"{PAGE} has no place for the table {mark!r}")
        shown = rows(result_of(mark)) if file_of(mark).exists() else ["Not measured yet."]
        page = page[: found.start(1)] + "\n".join(shown) + page[found.end(1) :]
    return page


def between(mark: str) -> str:
    return rf"<!-- results: {mark} -->\n(.*?)\n<!-- end -->"


def file_of(mark: str) -> Path:
    """A mark begins with the name of its file."""
    return RESULTS / f"{mark.partition(',')[0]}.json"


def result_of(mark: str) -> dict[str, Any]:
    return json.loads(file_of(mark).read_text())


def listed(result: dict[str, Any], columns: list[Column]) -> list[str]:
    """One row a cell; the first two columns are text, the last says whether both sides computed the same."""
    names = ["cell", "peer", *(name for name, _ in columns), "equal"]
    rows = [f"| {' | '.join(names)} |", "|---|---" + "|--:" * len(columns) + "|---|"]
    for cell in result["cells"]:
        peer = cell["peer"]["name"] if cell["peer"] else "-"
        values = [show(cell) for _, show in columns]
        rows.append(f"| {' | '.join([cell['cell'], peer, *values, 'yes' if cell['equal'] else 'no'])} |")
    return rows


def own(name: str, form: str) -> Column:
    """A field of the cell itself. name: `ours, ms` is of `ours`"""
    return name, lambda cell: number(cell[name.partition(",")[0]], form)


def counted(name: str, key: str, form: str) -> Column:
    return name, lambda cell: number(cell["counted"].get(key), form)


def number(value: float | None, form: str) -> str:
    """A figure that a cell does not have is a dash."""
    return "-" if value is None else format(value, form)


def times(form: str) -> list[Column]:
    """Medians, and their ratio with its interval."""
    return [own("ours, ms", form), own("theirs, ms", form), own("ratio", ".2f"), ("95 % interval", _interval)]


def _interval(cell: dict[str, Any]) -> str:
    return "-" if cell["ci"] is None else f"{cell['ci'][0]:.2f} to {cell['ci'][1]:.2f}"


def sides(result: dict[str, Any]) -> list[str]:
    """What was counted on each side of `step`, one column a peer."""
    steps = [cell for cell in result["cells"] if cell["cell"] == "step"]
    names = [cell["peer"]["name"] for cell in steps]
    rows = [f"| counted | {' | '.join(names)} |", "|---" + "|--:" * len(names) + "|"]
    for key in steps[0]["counted"]:
        values = (f"{cell['counted'][key]:.7g}" for cell in steps)
        rows.append(f"| `{key}` | {' | '.join(values)} |")
    return rows


def _wanted(cell: dict[str, Any]) -> str:
    """Results of an older form have no target."""
    if (target := cell.get("target")) is None:
        return "-"
    name, unit = target["figure"].rpartition("_")[::2]
    return f"{name} ≤ {target['at_most']:g} {unit.replace('mb', 'MB')}: {'met' if target['met'] else 'missed'}"


PAIRS: Column = "pairs", lambda cell: str(cell["peer"]["settings"]["pairs"])
LOAD = counted("load", "load_1min", ".1f")
CPU_RATIO = counted("processor time, ratio", "cpu_ratio", ".2f")
LOSS = [
    *times(".0f"),
    CPU_RATIO,
    counted("extra memory: ours, MB", "extra_mb_ours", ".0f"),
    counted("theirs, MB", "extra_mb_theirs", ".0f"),
    PAIRS,
    LOAD,
]
SCORING = [
    *times(".0f"),
    CPU_RATIO,
    counted("predicted", "predicted", ".2f"),
    counted("reached", "reached", ".0%"),
    counted("response tokens/s: ours", "tokens_per_s_ours", ".0f"),
    counted("theirs", "tokens_per_s_theirs", ".0f"),
    PAIRS,
    LOAD,
]
MEMORY = [
    counted("scored tokens", "response_tokens", ".0f"),
    counted("peak: ours, MB", "peak_mb_ours", ".0f"),
    counted("of which the encoding, MB", "encoding_mb_ours", ".0f"),
    counted("theirs, MB", "peak_mb_theirs", ".0f"),
]
TRANSPORT = [
    *times(".2f"),
    counted("processor time, ours, ms: in turn with the peer", "cpu_ms_ours", ".2f"),
    counted("in a row", "cpu_ms_in_a_row", ".2f"),
    counted("bytes: ours", "bytes_ours", ".0f"),
    counted("theirs", "bytes_theirs", ".0f"),
    counted("ours, an entry", "bytes_an_entry", ".2f"),
    LOAD,
]
DOOR = [
    *times(".2f"),
    counted("added at the median, ms", "added_p50_ms", ".2f"),
    LOAD,
]
QUEUE = [
    *times(".2f"),
    counted("scores/s: ours", "scores_per_s_ours", ".0f"),
    counted("theirs", "scores_per_s_theirs", ".0f"),
    counted("90th percentile: ours, ms", "p90_ms_ours", ".2f"),
    counted("theirs, ms", "p90_ms_theirs", ".2f"),
    counted("processor time of the client: ours, ms a score", "client_cpu_ms_ours", ".2f"),
    counted("theirs, ms a score", "client_cpu_ms_theirs", ".2f"),
    LOAD,
]
REPLICAS = [
    own("ours, ms", ".0f"),
    counted("questions", "questions", ".0f"),
    counted("tokens/s", "tokens_per_s", ".0f"),
    counted("efficiency", "efficiency", ".3f"),
    counted("of the wait", "of_the_wait", ".3f"),
    LOAD,
]
OVERLAP = [
    *times(".0f"),
    counted("writing, ms", "write_ms", ".0f"),
    counted("marking, ms", "mark_ms", ".0f"),
    counted("learning, ms", "learn_ms", ".0f"),
    counted("one after the other, ms", "one_after_the_other_ms", ".0f"),
    LOAD,
]
COORDINATOR = [
    own("ours, ms", ".0f"),
    counted("95th percentile, ms", "p95_ms", ".0f"),
    counted("largest, ms", "max_ms", ".0f"),
    counted("with the lists, ms", "lists_ms", ".0f"),
    counted("requests", "requests", ".0f"),
    counted("bytes", "bytes", ".0f"),
    counted("events", "events", ".0f"),
    counted("memory before, MB", "rss_before_mb", ".1f"),
    counted("half way, MB", "rss_half_mb", ".1f"),
    counted("after, MB", "rss_after_mb", ".1f"),
    ("target", _wanted),
    LOAD,
]
TABLES: dict[str, Rows] = {
    "loss": lambda result: listed(result, LOSS),
    "scoring": lambda result: listed(result, SCORING),
    "scoring, memory": lambda result: listed(result, MEMORY),
    "transport": lambda result: listed(result, TRANSPORT),
    "door": lambda result: listed(result, DOOR),
    "queue": lambda result: listed(result, QUEUE),
    "replicas": lambda result: listed(result, REPLICAS),
    "overlap": lambda result: listed(result, OVERLAP),
    "coordinator": lambda result: listed(result, COORDINATOR),
    "step": lambda result: listed(result, times(".0f")),
    "step, counted": sides,
}

if __name__ == "__main__":
    main()
