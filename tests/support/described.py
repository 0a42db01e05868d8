"""Both services as their committed OpenAPI files have them, and what schemathesis holds their answers to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import damaged
import schemathesis
from fastapi import FastAPI
from pages import ROOT
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from sqlalchemy import delete, update

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.runs import submit
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import EventRow, RunRow
from tutelage_client.wire import MEDIA_TYPE

CONFIG = {
    "generation": {"max-examples": 10, "deterministic": True},  # beside the boundary values of every field
    "output": {"sanitization": {"enabled": False}},  # nothing here is a secret, and a failure shows what was sent
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
PUSHED = {
    "name": "fuzzed",
    "student": {"model": "/models/student"},
    "data": {},
    "objective": {"kind": "constant_penalty"},
    "rollout": {"source": "pushed"},
}
schemathesis.openapi.media_type(MEDIA_TYPE, damaged.binary)


def described(service: str, config: dict[str, Any] = CONFIG) -> Any:
    """The committed file, as schemathesis reads it."""
    file = ROOT / "docs/reference" / f"openapi-{service}.json"
    return schemathesis.openapi.from_path(file, config=SchemathesisConfig.from_dict(config))


def coordinator(folder: Path, **settings: Any) -> FastAPI:
    """With one run, whose id is the one that is tried first. It is told to stop, so no answer is waited for."""
    database = Database(f"sqlite:///{folder / 'coordinator.db'}")
    app = build_app(Settings(data_dir=folder, **settings), database)
    app.state.stopping.set()
    with database.write() as session:
        submit(session, PUSHED, None)
        session.execute(delete(EventRow))
        session.execute(update(RunRow).values(id="0"))
    return app
