"""A refusal is one sentence and the dotted field that it speaks of: as a validator raises it, as a person reads it."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails, PydanticCustomError

from tutelage_client.wire.sentences import reason


def refused(field: str, sentence: str) -> ValidationError:
    """What a model's validator raises against one of its fields, a dotted path. A ValueError speaks of the model."""
    why = PydanticCustomError("refused", "{sentence}", {"sentence": sentence})
    return ValidationError.from_exception_data(
        "refusal", [InitErrorDetails(type=why, loc=tuple(field.split(".")), input=None)]
    )


def in_one_sentence(sentence: str) -> WrapValidator:
    """Marks a union whose members have no names. Pydantic would tell what is wrong with the value as each of them."""

    def read(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        try:
            return handler(value)
        except ValidationError as error:
            raise ValueError(sentence) from error

    return WrapValidator(read)


def explain(error: ValidationError) -> tuple[str, str | None]:
    """One sentence and the dotted field of the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    return (f"{field}: {reason(first)}" if field else reason(first)), field
