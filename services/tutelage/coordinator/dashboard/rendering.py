"""How a page of the dashboard is made: a template, what it may say of others, and what a browser may do with it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic_core import to_json

import tutelage
from tutelage.coordinator.callers import Gate
from tutelage.coordinator.dashboard import words
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput

HERE = Path(__file__).parent
Show = Callable[..., HTMLResponse]
# Whatever a rollout or a name holds, the browser runs and loads nothing but the files below.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def renderer(gate: Gate) -> Show:
    """Makes an answer from a template and what it shows."""
    environment = _environment(gate)

    def show(template: str, status: int = 200, **shown: Any) -> HTMLResponse:
        text = environment.get_template(template).render(**shown)
        return HTMLResponse(text, status, headers=HEADERS)

    return show


def no_such(show: Show, what: str, error: ServiceProblem | InvalidInput) -> HTMLResponse:
    """The page that stands in for one that is not there. what: of which kind that is, as "run" or "page of runs"."""
    status, detail = (error.status_code, error.detail) if isinstance(error, ServiceProblem) else (422, str(error))
    return show("missing.html", status, here="", title=f"No such {what}", detail=detail)


def _environment(gate: Gate) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.policies["json.dumps_function"] = _json
    environment.globals |= {"version": tutelage.__version__, "remedy": words.remedy, "asks": gate.asks}
    environment.filters |= {
        "number": words.number,
        "duration": words.duration,
        "moment": words.moment,
        "prompt": words.prompt,
        "signed": words.signed,
        "plainly": words.plainly,
    }
    environment.filters |= {"clock": lambda seconds: datetime.fromtimestamp(seconds, UTC)}
    return environment


def _json(value: Any, **_: Any) -> str:
    """What a page hands to its script: thousands of numbers, which the standard library takes long for."""
    return to_json(value).decode()
