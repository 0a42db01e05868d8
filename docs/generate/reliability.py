"""The fault matrix as a page: each fault, what is promised, and what its tests said when they were last run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docs.generate.markdown import table
from tests.faults.matrix import MATRIX, Row

RESULT = Path(__file__).parents[1] / "results" / "faults.json"
INTRODUCTION = """# What may fail, and what happens then

Delivery is at least once; the effect on the student is once per committed lineage: what an attempt did after its last
checkpoint is done again by the next one, and never counted. Each line below is held by tests that break the thing in
question, with real processes and real signals wherever one machine allows it, and then read the run's own record
(`tutelage_client.history`) for these invariants:

- **I1** the steps that count are consecutive, each once, their epochs never fall, and nobody wrote with an old epoch
- **I2** no score is learned from twice in them
- **I3** everything submitted was trained, left out and counted, or is still queued
- **I4** a deterministic run ends with the weights of the undisturbed one
- **I5** queue and memory stay below their bounds
- **I6** after the fault the run goes on within its limit
- **I7** no secret and no prompt is in a log

The reader of the record is itself tested: bugs that are put in on purpose must make it fail.
`python -m tests.faults` runs all of it and writes [the result](results/faults.json) that this page shows.
"""


def reliability_page() -> str:
    found = json.loads(RESULT.read_text())
    results = {row["number"]: row["tests"] for row in found["rows"]}
    rows = [
        [str(row.number), row.fault, row.promise, _verdict(results.get(row.number, [])), _names(row)] for row in MATRIX
    ]
    told = f"Last run at commit `{found['commit'][:12]}` on {found['machine']}.\n\n"
    return INTRODUCTION + "\n" + told + table(["", "fault", "what is promised", "last run", "tests"], rows)


def _verdict(tests: list[dict[str, Any]]) -> str:
    ran, passed = sum(test["ran"] for test in tests), sum(test["passed"] for test in tests)
    if not tests:
        return "not proven yet"
    if any(test["ran"] == 0 for test in tests):
        return "not all run"
    return f"{passed} passed" if passed == ran else f"**{ran - passed} of {ran} failed**"


def _names(row: Row) -> str:
    return "<br>".join(f"`{test.removeprefix('tests/')}`" for test in row.tests)
