"""The reference is what the code says, and says all of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from docs.generate.pages import pages
from pages import ROOT

from tutelage_client.spec import RunSpec
from tutelage_client.wire.codes import PROBLEMS, RUN_ERRORS

SERVICES = ROOT / "services" / "tutelage"
MADE = pages()


@pytest.mark.parametrize("name", MADE)
def test_a_committed_page_is_what_make_docs_makes(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == MADE[name], "run `make docs`"


def test_nothing_else_is_in_the_folder() -> None:
    found = {f"reference/{path.name}" for path in (ROOT / "docs/reference").iterdir()}
    assert found == {name for name in MADE if name.startswith("reference/")}


def test_every_key_of_a_spec_has_a_meaning() -> None:
    schema = RunSpec.model_json_schema()
    for name, model in {"RunSpec": schema, **schema["$defs"]}.items():
        assert model.get("description"), f"{name} has no docstring"
        for key, field in model["properties"].items():
            assert key == "kind" or field.get("description"), f"{name}.{key} has no meaning"


@pytest.mark.parametrize("name", ["reference/http-coordinator.md", "reference/http-teacher.md"])
def test_every_field_of_a_message_has_a_meaning(name: str) -> None:
    messages = MADE[name].partition("## Messages")[2]
    silent = [line for line in messages.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert [line for line in silent if not line.startswith("| `kind`")] == []


def calls(folder: Path) -> Iterator[tuple[str, list[ast.expr]]]:
    """Every call of a plain name, with its arguments, keywords included."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "code")]


def texts(arguments: list[ast.expr]) -> list[str]:
    return [node.value for node in arguments if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def raised() -> dict[str, int]:
    """The problems that the services answer with, where code and status stand in the call."""
    found: dict[str, int] = {}
    for name, arguments in calls(SERVICES):
        if (
            name in ("ServiceProblem", "Refused", "problem")
            and isinstance(arguments[0], ast.Constant)
            and texts(arguments[1:2])
        ):
            found[texts(arguments[1:2])[0]] = int(str(arguments[0].value))
    return found


def test_every_problem_is_listed_with_its_status() -> None:
    by_phrase = {"not_found", "method_not_allowed"}  # the framework's own, named by their status
    assert raised() == {code: known.status for code, known in PROBLEMS.items() if code not in by_phrase}


def test_every_error_of_a_run_is_listed() -> None:
    found = {"invalid_input", "diverged"}  # as execute names them
    for name, arguments in calls(SERVICES):
        if name in ("TeacherFailed", "_lost", "_ended"):
            found |= set(texts(arguments[:1]))
        if name == "TeacherOutage":
            found.add("teacher_outage")
        if name == "RunError":
            found |= set(texts(arguments))
    assert found == set(RUN_ERRORS)
    assert all(f'"{code}"' in (SERVICES / "trainer/execute.py").read_text() for code in ("invalid_input", "diverged"))
