"""From a file or a body to a `RunSpec`, or to the one sentence that says what is wrong with it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tutelage_client.errors import InvalidInput
from tutelage_client.spec.run import RunSpec
from tutelage_client.wire.refusal import explain


def parse_spec(data: Any) -> RunSpec:
    """The spec in `data`, as read from TOML or JSON.

    Raises:
        InvalidInput: the first thing that is wrong, as one sentence, with its field.
    """
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(*explain(error)) from error


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

    def absolute(value: str | None) -> str | None:
        return value if value is None or value.startswith("file:") else str((folder / value).resolve())

    data = spec.data.model_copy(update={"train": absolute(spec.data.train), "eval": absolute(spec.data.eval)})
    models = {name: getattr(spec, name) for name in ("student", "reference")}
    models = {
        name: model.model_copy(update={"model": absolute(model.model)})
        for name, model in models.items()
        if model is not None and model.revision is None
    }
    return spec.model_copy(update={"data": data} | models)
