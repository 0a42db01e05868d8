"""`python -m benchmarks NAME|all [--json FILE] [--out DIR] [--short]`: run, print a table, write the cells as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.door import door
from benchmarks.loss import loss
from benchmarks.measure import Cell, described
from benchmarks.scoring import scoring
from benchmarks.step import step
from benchmarks.transport import transport

BENCHMARKS = {"transport": transport, "door": door, "scoring": scoring, "loss": loss, "step": step}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--out", type=Path, help="write NAME.json of every benchmark into this folder")
    parser.add_argument("--short", action="store_true", help="few repetitions: shows that it runs")
    args = parser.parse_args()
    for name in BENCHMARKS if args.name == "all" else [args.name]:
        cells = BENCHMARKS[name](short=args.short)
        show(name, cells)
        for path in (args.json, args.out / f"{name}.json" if args.out else None):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(described(name, cells), indent=1) + "\n")


def show(name: str, cells: list[Cell]) -> None:
    print(f"{name}: ratio above 1 means that ours is better")
    for cell in cells:
        peer = cell.peer["name"] if cell.peer else "alone"
        print(f"  {cell.cell:<28} {peer:<28} {figures(cell)}, equal: {cell.equal}")


def figures(cell: Cell) -> str:
    if cell.theirs is None or cell.ratio is None or cell.ci is None:
        return f"{cell.ours:.3g} ms"
    low, high = cell.ci
    return f"{cell.ours:.3g} against {cell.theirs:.3g} ms, ratio {cell.ratio:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
