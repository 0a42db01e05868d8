"""`python -m tests.faults`: run the tests of the fault matrix, keep what came of it in docs/results/faults.json.

With paths, as of a file or a folder, only the tests of these. What is not run, as without root the tests that need it,
keeps the result of its last run, with the commit of that.

`python -m tests.faults soak --minutes 10 --seed 1`: faults at random on a stack that trains, kept in soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.faults.matrix import MATRIX, ROOT_ONLY

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "results" / "faults.json"
SOAK = RESULT.with_name("soak.json")


class Outcomes:
    """pytest's verdict on each test: passed only if every phase of it did."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if self.of.get(report.nodeid, "passed") == "passed":
            self.of[report.nodeid] = report.outcome


def main() -> int:
    return soak(sys.argv[2:]) if sys.argv[1:2] == ["soak"] else matrix()


def soak(arguments: list[str]) -> int:
    """The long soak."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults soak", description="faults at random, by a seed")
    parser.add_argument("--minutes", type=float, default=10.0, help="at least; every class of fault has its turn")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    os.environ["TUTELAGE_TEST_SOAK_MINUTES"], os.environ["TUTELAGE_TEST_SEED"] = str(asked.minutes), str(asked.seed)
    os.environ["TUTELAGE_TEST_SOAK_RESULT"] = str(SOAK)
    shown = ["-o", "log_cli=true", "-o", "log_cli_level=INFO", "-o", "log_cli_format=%(asctime)s %(message)s"]
    code = pytest.main(["-q", *shown, f"{ROOT}/tests/faults/test_soak.py"])
    told = {"commit": _commit(), "machine": platform.platform()} | json.loads(SOAK.read_text())
    SOAK.write_text(json.dumps(told, indent=1) + "\n")
    return int(code)


def matrix() -> int:
    """The tests that the rows name."""
    flags, paths = ([a for a in sys.argv[1:] if a.startswith("-") is is_flag] for is_flag in (True, False))
    named = {test for row in MATRIX for test in row.tests if test.startswith(tuple(paths or ("tests",)))}
    if os.geteuid() != 0:
        named = {test for test in named if not test.startswith(ROOT_ONLY)}
    asked = sorted(test for test in named if not any(_within(test, other) for other in named))
    outcomes = Outcomes()
    code = pytest.main(["-q", *flags, *asked], plugins=[outcomes])
    before = {each["test"]: each for row in json.loads(RESULT.read_text())["rows"] for each in row["tests"]}
    commit = _commit()
    found = before | {test: _result(test, outcomes) | {"commit": commit} for test in named}
    rows = [{"number": row.number, "tests": [found.get(t, _not_run(t)) for t in row.tests]} for row in MATRIX]
    RESULT.write_text(json.dumps({"machine": platform.platform(), "rows": rows}, indent=1) + "\n")
    return int(code)


def _commit() -> str:
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    return told.stdout.strip()


def _not_run(test: str) -> dict[str, Any]:
    return {"test": test, "ran": 0, "passed": 0, "seconds": 0, "commit": None}


def _result(test: str, outcomes: Outcomes) -> dict[str, Any]:
    """A test with all its parameters, or a whole file: passed if everything in it was run and passed."""
    mine = [node for node in outcomes.of if node == test or _within(node, test)]
    passed = sum(outcomes.of[node] == "passed" for node in mine)
    seconds = sum(outcomes.seconds[node] for node in mine)
    return {"test": test, "ran": len(mine), "passed": passed, "seconds": round(seconds, 1)}


def _within(node: str, test: str) -> bool:
    return node.startswith((f"{test}[", f"{test}::"))


if __name__ == "__main__":
    sys.exit(main())
