"""A benchmark's committed result as the rows of a table, for `docs/performance.md`; a test holds the two together."""

from __future__ import annotations

from typing import Any


def table(result: dict[str, Any]) -> list[str]:
    """One row a cell: medians, the ratio with its interval, and whether both sides computed the same."""
    rows = ["| cell | peer | ours, ms | theirs, ms | ratio | 95 % interval | equal |", "|---|---|--:|--:|--:|---|---|"]
    for cell in result["cells"]:
        low, high = cell["ci"]
        figures = f"{cell['ours']:.0f} | {cell['theirs']:.0f} | {cell['ratio']:.2f} | {low:.2f} to {high:.2f}"
        rows.append(f"| {cell['cell']} | {cell['peer']['name']} | {figures} | {'yes' if cell['equal'] else 'no'} |")
    return rows


def sides(result: dict[str, Any]) -> list[str]:
    """What was counted on each side, one column a peer."""
    steps = [cell for cell in result["cells"] if cell["cell"] == "step"]
    names = [cell["peer"]["name"] for cell in steps]
    rows = [f"| counted | {' | '.join(names)} |", "|---" + "|--:" * len(names) + "|"]
    for key in steps[0]["counted"]:
        values = (f"{cell['counted'][key]:.7g}" for cell in steps)
        rows.append(f"| `{key}` | {' | '.join(values)} |")
    return rows


def losses(result: dict[str, Any]) -> list[str]:
    """One row a cell of `loss`: time, processor time and memory; the products alone have no memory of their own."""
    rows = [
        "| cell | peer | ours, ms | theirs, ms | ratio | 95 % interval | processor time, ratio "
        "| extra memory: ours, MB | theirs, MB | pairs | load | equal |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|---|",
    ]
    for cell in result["cells"]:
        (low, high), counted = cell["ci"], cell["counted"]
        theirs = f"{counted['extra_mb_theirs']:.0f}" if "extra_mb_theirs" in counted else "-"
        figures = [
            f"{cell['ours']:.0f} | {cell['theirs']:.0f} | {cell['ratio']:.2f} | {low:.2f} to {high:.2f}",
            f"{counted['cpu_ratio']:.2f} | {counted['extra_mb_ours']:.0f} | {theirs}",
            f"{cell['peer']['settings']['pairs']} | {counted['load_1min']:.1f} | {'yes' if cell['equal'] else 'no'}",
        ]
        rows.append(f"| {cell['cell']} | {cell['peer']['name']} | {' | '.join(figures)} |")
    return rows
