"""Every page of docs/reference by its file name."""

from __future__ import annotations

from docs.generate.cli import cli_page
from docs.generate.errors import errors_page
from docs.generate.http import coordinator_page, teacher_page
from docs.generate.metrics import metrics_page
from docs.generate.spec import spec_page


def pages() -> dict[str, str]:
    """Markdown by file name."""
    made = {
        "spec.md": spec_page(),
        "cli.md": cli_page(),
        "metrics.md": metrics_page(),
        "http-coordinator.md": coordinator_page(),
        "http-teacher.md": teacher_page(),
        "errors.md": errors_page(),
    }
    note = "<!-- made by `make docs`; change the code, not this page -->\n\n"
    return {name: note + text.rstrip() + "\n" for name, text in made.items()}
