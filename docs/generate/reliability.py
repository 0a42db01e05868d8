"""The fault matrix as a page: each fault, what is promised, and what its tests said when they were last run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.generate.markdown import table
from docs.generate.soak import soak_part
from tests.faults.matrix import MATRIX, Row

from tutelage_client.history import PROMISES

RESULT = Path(__file__).parents[1] / "results" / "faults.json"
INTRODUCTION = """# What may fail, and what happens then

Delivery is at least once; the effect on the student is once per committed lineage: what an attempt did after its last
checkpoint is done again by the next one, and never counted. Each line below is held by tests that break the thing in
question, with real processes and real signals wherever one machine allows it, and then read the run's own record
(`tutelage_client.history`) for these invariants:

{promises}

The reader of the record is itself tested: bugs that are put in on purpose must make it fail. `tutelage runs check RUN`
reads that of any run. `python -m tests.faults` runs the tests and writes [the result](results/faults.json) that this
page shows, with the commit at which each was last run. Those in `e2e/faults` need root, for small disks, control
groups, other networks and system calls that fail: `make e2e` runs them.
"""


def reliability_page() -> str:
    found = json.loads(RESULT.read_text())
    results = {row["number"]: row["tests"] for row in found["rows"]}
    rows = [
        [
            str(row.number),
            row.fault,
            row.promise,
            _verdict(results[row.number]),
            _commits(results[row.number]),
            _names(row),
        ]
        for row in MATRIX
    ]
    told = f"Last run on {found['machine']}.\n\n"
    promises = "\n".join(f"- **{name}** {promise}" for name, promise in PROMISES.items())
    introduction = INTRODUCTION.format(promises=promises)
    head = ["", "fault", "what is promised", "last run", "at commit", "tests"]
    return introduction + "\n" + told + table(head, rows) + soak_part()


def _verdict(tests: list[dict[str, Any]]) -> str:
    ran, passed = sum(test["ran"] for test in tests), sum(test["passed"] for test in tests)
    if not tests:
        return "not proven yet"
    if any(test["ran"] == 0 for test in tests):
        return "not all run"
    return f"{passed} passed" if passed == ran else f"**{ran - passed} of {ran} failed**"


def _commits(tests: list[dict[str, Any]]) -> str:
    return "<br>".join(sorted({f"`{test['commit'][:12]}`" for test in tests if test["commit"]}))


def _names(row: Row) -> str:
    return "<br>".join(f"`{test.removeprefix('tests/')}`" for test in row.tests)
