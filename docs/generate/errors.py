"""docs/reference/errors.md: every stable code."""

from __future__ import annotations

from collections.abc import Mapping

from docs.generate.markdown import code, table

from tutelage_client.wire.codes import BOTH, COMMON, COORDINATOR, RUN_ERRORS, TEACHER, ProblemCode

INTRO = """# Errors

## Over HTTP

Every refusal is `application/problem+json` (RFC 9457) with `status`, a stable `code`, one sentence in `detail`, and the
dotted `field` of the body where there is one. Match on `code`; the sentence may change. The clients repeat a request
after a broken connection or a 429, 502 or 503, where repeating is safe.
"""
RUNS = """## Of a run

A run that failed has `error` with a `code`, a `category`, one sentence in `message`, and the `step` and `attempt`.

| category | whose it is | exit code of `--watch` |
|---|---|---|
| `user` | yours: spec, data, student | 2 |
| `teacher` | the teacher's operator | 1 |
| `infra` | the operator of the machines | 1 |
| `internal` | a bug of this project | 1 |
"""


def errors_page() -> str:
    groups: Mapping[str, Mapping[str, ProblemCode]] = {
        "Of every route": COMMON,
        "Of the coordinator": COORDINATOR,
        "Of the teacher": TEACHER,
        "Of both": BOTH,
    }
    parts = [INTRO]
    for title, codes in groups.items():
        rows = [[code(name), str(known.status), known.meaning] for name, known in codes.items()]
        parts += [f"### {title}\n", table(("code", "status", "meaning"), rows)]
    rows = [[code(name), code(known.category), known.meaning] for name, known in RUN_ERRORS.items()]
    return "\n".join([*parts, RUNS, table(("code", "category", "meaning"), rows)])
