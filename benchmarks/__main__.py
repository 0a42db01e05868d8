"""`python -m benchmarks NAME|all [--json FILE] [--out DIR] [--short]`: print and write each cell as it is measured."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.coordinator import coordinator
from benchmarks.door import door
from benchmarks.loss import loss
from benchmarks.measure import Cell, described
from benchmarks.overlap import overlap
from benchmarks.queue import queue
from benchmarks.replicas import replicas
from benchmarks.scoring import scoring
from benchmarks.step import step
from benchmarks.transport import transport

Benchmark = Callable[..., Iterable[Cell]]
BENCHMARKS: dict[str, Benchmark] = {
    "transport": transport, "door": door, "queue": queue, "replicas": replicas, "scoring": scoring, "loss": loss,
    "step": step, "overlap": overlap, "coordinator": coordinator,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--out", type=Path, help="write NAME.json of every benchmark into this folder")
    parser.add_argument("--short", action="store_true", help="few repetitions: shows that it runs")
    args = parser.parse_args()
    for name in BENCHMARKS if args.name == "all" else [args.name]:
        into = [args.json, args.out / f"{name}.json" if args.out else None]
        run(name, BENCHMARKS[name], short=args.short, into=[path for path in into if path is not None])


def run(name: str, benchmark: Benchmark, *, short: bool, into: list[Path]) -> None:
    """One that is cut short keeps the cells it has."""
    print(f"{name}: ratio above 1 means that ours is better", flush=True)
    cells: list[Cell] = []
    for cell in benchmark(short=short):
        show(cell)
        cells.append(cell)
        for path in into:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(described(name, cells), indent=1) + "\n")


def show(cell: Cell) -> None:
    peer = cell.peer["name"] if cell.peer else "alone"
    print(f"  {cell.cell:<28} {peer:<28} {figures(cell)}, equal: {cell.equal}{wanted(cell)}", flush=True)


def wanted(cell: Cell) -> str:
    if (target := cell.target) is None:
        return ""
    found = cell.counted[target.figure]
    return f", {target.figure}: {found:.3g} of at most {target.at_most:g}, {'met' if target.met else 'missed'}"


def figures(cell: Cell) -> str:
    if cell.theirs is None or cell.ratio is None or cell.ci is None:
        return f"{cell.ours:.3g} ms"
    low, high = cell.ci
    return f"{cell.ours:.3g} against {cell.theirs:.3g} ms, ratio {cell.ratio:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
