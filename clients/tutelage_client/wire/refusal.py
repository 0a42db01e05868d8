"""A refusal is one sentence and the dotted field that it speaks of: as a validator raises it, as a person reads it."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


def refused(field: str, sentence: str) -> ValidationError:
    """What a model's validator raises against one of its fields, a dotted path. A ValueError speaks of the model."""
    reason = PydanticCustomError("refused", "{sentence}", {"sentence": sentence})
    return ValidationError.from_exception_data(
        "refusal", [InitErrorDetails(type=reason, loc=tuple(field.split(".")), input=None)]
    )


def explain(error: ValidationError) -> tuple[str, str | None]:
    """One sentence and the dotted field of the first thing that is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    message = first["msg"].removeprefix("Value error, ")
    return (f"{field}: {message}" if field else message), field
