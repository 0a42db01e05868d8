"""Both services hold to their committed OpenAPI files, whatever is sent: no bug, no answer that is not in the file."""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from described import CHECKS, CONFIG, coordinator, described
from fastapi import FastAPI
from schemathesis import Case
from schemathesis.specs.openapi import checks
from starlette.types import Receive, Scope, Send

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.serving import PROBLEM_TYPE
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.wire.codes import PROBLEMS

GUARD = CONFIG | {"generation": {"max-examples": 3, "deterministic": True}, "phases": {"coverage": {"enabled": False}}}
HERE = "http://127.0.0.1"  # a service without keys is called by no other name
KEY = secrets.token_hex(32)
# What the libraries beneath say, and what speaks of the inside; in one text, as Hypothesis sends a test's short texts.
NOT_OURS = re.compile(
    "should match pattern|Input should|should have at|Field required|Extra inputs|Value error|"
    "error parsing the body|Traceback|Errno"
)

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
    settings = Settings.model_validate({"name": "toy", "engine": "fake"})
    return build_app(settings, FakeEngine(FakeOptions(max_length=256), "toy"))


def guarded_teacher(folder: Path) -> FastAPI:
    """It knows the digest of KEY and no other."""
    (folder / "keys").write_text(hashlib.sha256(KEY.encode()).hexdigest())
    settings = Settings.model_validate({"name": "toy", "engine": "fake", "keys_file": folder / "keys"})
    return build_app(settings, FakeEngine(FakeOptions(max_length=256), "toy"))


def guarded_coordinator(folder: Path) -> FastAPI:
    """The same coordinator, to whom KEY is the administrator's."""
    (folder / "admin").write_text(KEY)
    return coordinator(folder, require_keys=True, admin_key_file=folder / "admin")


def served(service: str, build: Build, config: dict[str, Any] = CONFIG) -> Any:
    schema = described(service, config)
    schema.app = Afresh(build)
    return schema


def holds(case: Case) -> None:
    """An answer is in the file, and a refusal has a code that the page of errors has, and sentences of ours."""
    answer = case.call_and_validate(base_url=HERE, checks=CHECKS)
    if answer.status_code >= 400:
        told = answer.json()
        code = told["code"] if answer.headers["content-type"] == [PROBLEM_TYPE] else told["error"]["code"]
        assert code in PROBLEMS
        assert not NOT_OURS.search(answer.text), answer.text


@served("teacher", teacher).parametrize()
def test_a_teacher_answers_as_its_file_says(case: Case) -> None:
    holds(case)


@served("coordinator", coordinator).parametrize()
def test_a_coordinator_answers_as_its_file_says(case: Case) -> None:
    holds(case)


def asks_for_its_key(case: Case) -> None:
    """What is answered with the key is refused without one, and with another."""
    case.call_and_validate(checks=[checks.ignored_auth], headers={"Authorization": f"Bearer {KEY}"})


@served("teacher", guarded_teacher, GUARD).parametrize()
def test_a_teacher_with_keys_lets_nobody_else_in(case: Case) -> None:
    asks_for_its_key(case)


@served("coordinator", guarded_coordinator, GUARD).parametrize()
def test_a_coordinator_with_keys_lets_nobody_else_in(case: Case) -> None:
    asks_for_its_key(case)
