"""From a file or a body to a `RunSpec`, or to the one sentence that says what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage_client.errors import InvalidInput
from tutelage_client.spec.run import RunSpec


def parse_spec(data: Any) -> RunSpec:
    """The spec in `data`, as read from TOML or JSON.

    Raises:
        InvalidInput: the first thing that is wrong, as one sentence, with its field.
    """
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


def explain(error: ValidationError) -> tuple[str, str | None]:
    """One sentence and the dotted field of the first thing that pydantic found."""
    first = error.errors(include_url=False, include_input=False)[0]
    tags = {"full", "teacher_top_k", "student_top_k", "sampled", "divergence", "policy_gradient", "supervised"}
    tags |= {"constant_penalty", "signal_clip", "ratio_clip", "special_token_mask", "reference_kl"}
    tags |= {"exact_match", "last_number", "contains", "pattern", "sequence", "group"}
    path = first["loc"]
    # The name of a union's member is no key; what stands behind one is (objective.divergence, data.grader.pattern).
    loc = [str(part) for i, part in enumerate(path) if i == 0 or part not in tags or path[i - 1] in tags]
    if first["type"] == "unknown_key":
        loc.append(str(first.get("ctx", {})["key"]))
    field = ".".join(loc) or None
    message = first["msg"].removeprefix("Value error, ")
    return (f"{field}: {message}" if field else message), field


def load_spec(path: Path) -> RunSpec:
    """The spec in a TOML file; its relative paths are resolved against the file's folder.

    Raises:
        InvalidInput: not readable, not TOML, or not a spec.
    """
    try:
        data = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    return resolve_paths(parse_spec(data), path.resolve().parent)


def resolve_paths(spec: RunSpec, folder: Path) -> RunSpec:
    """The same spec with absolute paths. `file:ID` and hub ids (a `revision` is given) stay as they are."""

    def resolved(value: str | None) -> str | None:
        return value if value is None or value.startswith("file:") else str((folder / value).resolve())

    data = spec.data.model_copy(update={"train": resolved(spec.data.train), "eval": resolved(spec.data.eval)})
    student = spec.student
    if student.revision is None:
        student = student.model_copy(update={"model": resolved(student.model)})
    return spec.model_copy(update={"data": data, "student": student})
