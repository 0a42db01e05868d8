"""Truth values where numbers belong: pydantic reads `true` as 1, and nobody who writes it means that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, PlainValidator
from pydantic.fields import FieldInfo

from tutelage_client.wire.sentences import reason

_NUMBERS = frozenset({int, float})
_PLAIN = _NUMBERS | {str, NoneType, Ellipsis}
_LOOKED_INTO = frozenset({bool, dict, list, tuple})
_ANYTHING = frozenset({bool, Any, object})


def mistaken(model: type[BaseModel], data: Mapping[Any, Any]) -> tuple[str, str] | None:
    """The dotted field of the first truth value that stands for a number, and what is wrong with it."""
    for name, (error, is_plain) in _numbers(model).items():
        for place, value in _truths(name, data.get(name), is_plain=is_plain):
            return place, reason({"type": error, "input": value})
    return None


def _truths(place: str, value: Any, *, is_plain: bool) -> Iterator[tuple[str, bool]]:
    """Those in lists and objects too, where these hold nothing else than plain values."""
    if isinstance(value, bool):
        yield place, value
    elif is_plain and isinstance(value, dict | list | tuple):
        keys, values = (value.keys(), value.values()) if isinstance(value, dict) else (range(len(value)), value)
        if not _LOOKED_INTO.isdisjoint(map(type, values)):  # a long list of numbers is passed over quickly
            for key, each in zip(keys, values, strict=True):
                yield from _truths(f"{place}.{key}", each, is_plain=True)


@cache
def _numbers(model: type[BaseModel]) -> dict[str, tuple[str, bool]]:
    """Fields that hold numbers and no truth values: what pydantic calls the error, and whether all in it is plain."""
    read = {name: field for name, field in model.model_fields.items() if not _reads_itself(field)}
    kinds = {name: _kinds(field.annotation) for name, field in read.items()}
    return {
        name: ("float_type" if float in found else "int_type", found <= _PLAIN)
        for name, found in kinds.items()
        if found & _NUMBERS and not found & _ANYTHING
    }


def _reads_itself(field: FieldInfo) -> bool:
    """Whether nothing of pydantic's reads it, so that true is told in words of its own."""
    return any(isinstance(each, PlainValidator) for each in field.metadata)


def _kinds(annotation: Any) -> frozenset[Any]:
    """The types that an annotation is made of; of lists and objects those that they hold."""
    inside = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _kinds(inside[0])
    if get_origin(annotation) is Literal:
        return frozenset(map(type, inside))
    return frozenset().union(*map(_kinds, inside)) if inside else frozenset({annotation})
