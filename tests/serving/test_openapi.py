"""Both services hold to their committed OpenAPI files, whatever is sent: no bug, no answer that is not in the file."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import damaged
import schemathesis
from fastapi import FastAPI
from pages import ROOT
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks
from sqlalchemy import delete, update
from starlette.types import Receive, Scope, Send

from tutelage.coordinator.app import build_app as build_coordinator
from tutelage.coordinator.db import Database
from tutelage.coordinator.runs import submit
from tutelage.coordinator.settings import Settings as CoordinatorSettings
from tutelage.coordinator.tables import EventRow, RunRow
from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.serving import PROBLEM_TYPE
from tutelage.teacher.build import build_app as build_teacher
from tutelage.teacher.settings import Settings as TeacherSettings
from tutelage_client.wire import MEDIA_TYPE
from tutelage_client.wire.codes import PROBLEMS

CONFIG = {
    "generation": {"max-examples": 10, "deterministic": True},  # beside the boundary values of every field
    "output": {"sanitization": {"enabled": False}},  # nothing here is a secret, and a failure shows what was sent
}
GUARD = CONFIG | {"generation": {"max-examples": 3, "deterministic": True}, "phases": {"coverage": {"enabled": False}}}
KEY = secrets.token_hex(32)
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

Build = Callable[[Path], FastAPI]


class Afresh:
    """An app that is built at each start, in the thread that serves it, where its database's connection must be."""

    def __init__(self, build: Build) -> None:
        self._build = build

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            with tempfile.TemporaryDirectory() as folder:
                self._app = self._build(Path(folder))
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def teacher(_: Path) -> FastAPI:
    settings = TeacherSettings.model_validate({"name": "toy", "engine": "fake"})
    return build_teacher(settings, FakeEngine(FakeOptions(max_length=256), "toy"))


def coordinator(folder: Path, **settings: Any) -> FastAPI:
    """With one run, whose id is the one that is tried first. It is told to stop, so no answer is waited for."""
    database = Database(f"sqlite:///{folder / 'coordinator.db'}")
    app = build_coordinator(CoordinatorSettings(data_dir=folder, **settings), database)
    app.state.stopping.set()
    with database.write() as session:
        submit(session, PUSHED, None)
        session.execute(delete(EventRow))
        session.execute(update(RunRow).values(id="0"))
    return app


def guarded_teacher(folder: Path) -> FastAPI:
    """It knows the digest of KEY and no other."""
    (folder / "keys").write_text(hashlib.sha256(KEY.encode()).hexdigest())
    settings = TeacherSettings.model_validate({"name": "toy", "engine": "fake", "keys_file": folder / "keys"})
    return build_teacher(settings, FakeEngine(FakeOptions(max_length=256), "toy"))


def guarded_coordinator(folder: Path) -> FastAPI:
    """The same coordinator, to whom KEY is the administrator's."""
    (folder / "admin").write_text(KEY)
    return coordinator(folder, require_keys=True, admin_key_file=folder / "admin")


def committed(name: str, build: Build, config: dict[str, Any] = CONFIG) -> Any:
    schema = schemathesis.openapi.from_path(ROOT / "docs/reference" / name, config=SchemathesisConfig.from_dict(config))
    schema.app = Afresh(build)
    return schema


def holds(case: Case) -> None:
    """An answer is in the file, and a refusal has a code that the page of errors has."""
    answer = case.call_and_validate(checks=CHECKS)
    if answer.status_code >= 400:
        told = answer.json()
        code = told["code"] if answer.headers["content-type"] == [PROBLEM_TYPE] else told["error"]["code"]
        assert code in PROBLEMS


@committed("openapi-teacher.json", teacher).parametrize()
def test_a_teacher_answers_as_its_file_says(case: Case) -> None:
    holds(case)


@committed("openapi-coordinator.json", coordinator).parametrize()
def test_a_coordinator_answers_as_its_file_says(case: Case) -> None:
    holds(case)


def asks_for_its_key(case: Case) -> None:
    """What is answered with the key is refused without one, and with another."""
    case.call_and_validate(checks=[checks.ignored_auth], headers={"Authorization": f"Bearer {KEY}"})


@committed("openapi-teacher.json", guarded_teacher, GUARD).parametrize()
def test_a_teacher_with_keys_lets_nobody_else_in(case: Case) -> None:
    asks_for_its_key(case)


@committed("openapi-coordinator.json", guarded_coordinator, GUARD).parametrize()
def test_a_coordinator_with_keys_lets_nobody_else_in(case: Case) -> None:
    asks_for_its_key(case)
