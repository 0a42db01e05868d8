"""Every file that is made from the code, by its path below docs."""

from __future__ import annotations

import json
from typing import Any

from docs.generate.algorithms import algorithms_page
from docs.generate.cli import cli_page
from docs.generate.errors import errors_page
from docs.generate.http import coordinator_page, teacher_page
from docs.generate.metrics import metrics_page
from docs.generate.openapi import coordinator_openapi, teacher_openapi
from docs.generate.reliability import reliability_page
from docs.generate.spec import spec_page
from docs.generate.states import states_page


def pages() -> dict[str, str]:
    """Markdown and OpenAPI by path below docs."""
    written = {
        "algorithms.md": algorithms_page(),
        "reliability.md": reliability_page(),
        "reference/spec.md": spec_page(),
        "reference/cli.md": cli_page(),
        "reference/metrics.md": metrics_page(),
        "reference/http-coordinator.md": coordinator_page(),
        "reference/http-teacher.md": teacher_page(),
        "reference/errors.md": errors_page(),
        "reference/states.md": states_page(),
    }
    described = {
        "reference/openapi-coordinator.json": coordinator_openapi(),
        "reference/openapi-teacher.json": teacher_openapi(),
    }
    note = "<!-- made by `make docs`; change the code, not this page -->\n\n"
    return {name: note + text.rstrip() + "\n" for name, text in written.items()} | {
        name: _as_json(openapi) for name, openapi in described.items()
    }


def _as_json(openapi: dict[str, Any]) -> str:
    return json.dumps(openapi, indent=1, ensure_ascii=False) + "\n"
