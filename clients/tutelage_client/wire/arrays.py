"""Numpy arrays as pydantic fields: lists in JSON, arrays in Python."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_INT32 = np.iinfo(np.int32)


def _numbers(array: NDArray[Any]) -> Any:
    """JSON has no NaN or infinity: both are null, and `valid` tells them apart."""
    finite = np.isfinite(array)
    if finite.all():
        return array.tolist()
    boxed = array.astype(object)
    boxed[~finite] = None
    return boxed.tolist()


def _to_int32(value: Any) -> NDArray[np.int32]:
    array = np.asarray(value)
    if array.size == 0:
        return array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise ValueError("token ids are whole numbers")
    if array.max() > _INT32.max or array.min() < _INT32.min:
        raise ValueError(f"token ids lie between {_INT32.min} and {_INT32.max}")
    return array.astype(np.int32)


def _to_float32(value: Any) -> NDArray[np.float32]:
    return np.asarray(value, dtype=np.float32)


def _to_bool(value: Any) -> NDArray[np.bool_]:
    array = np.asarray(value)
    if array.size and array.dtype != np.bool_ and not (array.dtype == np.uint8 and array.max() <= 1):
        raise ValueError("expected true or false")
    return array.astype(np.bool_)


def _ragged_ids(value: Any) -> NDArray[np.int32]:
    """Rows of ids to [rows, width]; a shorter row is padded with -1."""
    if isinstance(value, np.ndarray):
        return _to_int32(value)
    width = max((len(row) for row in value), default=0)
    return _to_int32([list(row) + [-1] * (width - len(row)) for row in value]).reshape(len(value), width)


_vector = {"type": "array", "items": {"type": ["number", "null"]}}
_ids = {"type": "array", "items": {"type": "integer"}}
_matrix = {"type": "array", "items": _vector}

TokenIds = Annotated[
    NDArray[np.int32], BeforeValidator(_to_int32), PlainSerializer(lambda a: a.tolist()), WithJsonSchema(_ids)
]
IdRows = Annotated[
    NDArray[np.int32],
    BeforeValidator(_ragged_ids),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": _ids}),
]
Floats = Annotated[
    NDArray[np.float32], BeforeValidator(_to_float32), PlainSerializer(_numbers), WithJsonSchema(_vector)
]
FloatRows = Annotated[
    NDArray[np.float32], BeforeValidator(_to_float32), PlainSerializer(_numbers), WithJsonSchema(_matrix)
]
Flags = Annotated[
    NDArray[np.bool_],
    BeforeValidator(_to_bool),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": {"type": "boolean"}}),
]
FlagRows = Annotated[
    NDArray[np.bool_],
    BeforeValidator(_to_bool),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}),
]
