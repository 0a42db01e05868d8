"""`python -m experiments NAME [--json FILE]`: make one result file and the page beside it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from experiments.black_box import black_box
from experiments.collapse import collapse
from experiments.demo import demo
from experiments.domains import domains, domains_wide
from experiments.horizon import horizon
from experiments.language import language
from experiments.language_cause import language_cause

EXPERIMENTS = {
    "black_box": black_box,
    "collapse": collapse,
    "demo": demo,
    "domains": domains,
    "domains_wide": domains_wide,
    "horizon": horizon,
    "language": language,
    "language_cause": language_cause,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("name", choices=EXPERIMENTS)
    parser.add_argument("--json", type=Path, help="where the result goes (default: docs/results/NAME.json)")
    args = parser.parse_args()
    asyncio.run(EXPERIMENTS[args.name](args.json or Path("docs/results") / f"{args.name}.json"))


if __name__ == "__main__":
    main()
