"""docs/reference/openapi-*.json: what the services say of themselves, as files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.serving import create_app
from tutelage.teacher.accounts import Budget
from tutelage.teacher.app import add_routes
from tutelage.teacher.callers import Callers


def coordinator_openapi() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder) / 'empty.db'}")
        openapi = build_app(Settings(data_dir=Path(folder)), database).openapi()
        database.close()
    return openapi


def teacher_openapi() -> dict[str, Any]:
    app = create_app("Tutelage teacher")
    add_routes(app, Callers(None, Budget()))
    return app.openapi()
