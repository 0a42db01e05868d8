"""`python -m tests.faults`: run the tests of the fault matrix, keep what came of it in docs/results/faults.json."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.faults.matrix import MATRIX

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "docs" / "results" / "faults.json"


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
    named = {test for row in MATRIX for test in row.tests}
    asked = sorted(test for test in named if not any(_within(test, other) for other in named))
    outcomes = Outcomes()
    code = pytest.main(["-q", *sys.argv[1:], *asked], plugins=[outcomes])
    rows = [{"number": row.number, "tests": [_result(test, outcomes) for test in row.tests]} for row in MATRIX]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {"commit": commit.stdout.strip(), "machine": platform.platform(), "rows": rows}
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    return int(code)


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
