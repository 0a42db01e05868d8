"""Numpy arrays as pydantic fields: lists in JSON, arrays in Python."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

_INT32 = np.iinfo(np.int32)
Number = TypeVar("Number", np.int32, np.float32, np.bool_)


def _numbers(array: NDArray[Any]) -> Any:
    """JSON has no NaN or infinity: both are null, and `valid` tells them apart."""
    finite = np.isfinite(array)
    if finite.all():
        return array.tolist()
    boxed = array.astype(object)
    boxed[~finite] = None
    return boxed.tolist()


def _listed(value: Any, kinds: str, what: str) -> NDArray[Any]:
    """What lists hold. kinds: of numpy's that may be in them; what: they are in words"""
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"give a list of {what}")  # noqa: TRY004 - pydantic wants a ValueError
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"the lists of {what} differ in length; give rows of one length") from error
    if array.size and array.dtype.kind not in kinds:
        raise ValueError(f"{what} are expected here")
    return array


def to_int32(value: Any) -> NDArray[np.int32]:
    """Raises: ValueError: it holds something else than whole numbers, or one that is no token id."""
    array = _listed(value, "iu", "token ids, which are whole numbers")
    if array.dtype != np.int32 and array.size and (array.max() > _INT32.max or array.min() < _INT32.min):
        raise ValueError(f"token ids lie between {_INT32.min} and {_INT32.max}")
    return _owned(array, np.int32)


def to_float32(value: Any) -> NDArray[np.float32]:
    """Raises: ValueError: it holds something else than numbers and nulls, or one that no float can be."""
    array = _listed(value, "iufO", "numbers or null")  # a null makes it one of objects
    if array.dtype.kind == "O" and not all(each is None or isinstance(each, int | float) for each in array.flat):
        raise ValueError("numbers or null are expected here")
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinity
            return _owned(array, np.float32)
    except OverflowError as error:
        raise ValueError("a number is beyond what a float can be") from error


def to_bool(value: Any) -> NDArray[np.bool_]:
    """Raises: ValueError: it holds something else than true and false, or 1 and 0."""
    array = _listed(value, "bu", "true or false")
    if array.dtype.kind == "u" and array.size and array.max() > 1:
        raise ValueError("true or false are expected here")
    return _owned(array, np.bool_)


def _owned(array: NDArray[Any], dtype: type[Number]) -> NDArray[Number]:
    """Numbers that nobody else changes: a copy, but not of what cannot be written, such as a view of a body."""
    return array.astype(dtype, copy=array.flags.writeable)


def _ragged_ids(value: Any) -> NDArray[np.int32]:
    """Rows of ids to [rows, width]; a shorter row is padded with -1."""
    if isinstance(value, np.ndarray):
        return to_int32(value)
    if not isinstance(value, list | tuple) or not all(isinstance(row, list | tuple | np.ndarray) for row in value):
        raise ValueError("give a list of token ids for each row")
    width = max((len(row) for row in value), default=0)
    return to_int32([list(row) + [-1] * (width - len(row)) for row in value]).reshape(len(value), width)


def repeat_in_a_row(ids: NDArray[np.int32]) -> tuple[int, int] | None:
    """A row of ids [R, S] and an id that stands in it twice; None where there is none. Negative ids pad."""
    width = ids.shape[1]
    if width < 2:
        return None
    flat = np.sort(ids, axis=1).ravel()
    same = flat[1:] == flat[:-1]
    same[width - 1 :: width] = False  # neighbours of two rows
    if not same.any():
        return None
    same &= flat[1:] >= 0
    first = int(same.argmax())
    return (first // width, int(flat[first])) if same[first] else None


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 1:
        raise ValueError("give one list of numbers, not lists in a list")
    return array


_vector = {"type": "array", "items": {"type": ["number", "null"]}}
_ids = {"type": "array", "items": {"type": "integer"}}
_matrix = {"type": "array", "items": _vector}

TokenIds = Annotated[
    NDArray[np.int32],
    BeforeValidator(to_int32),
    AfterValidator(_flat),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema(_ids),
]
IdRows = Annotated[
    NDArray[np.int32],
    BeforeValidator(_ragged_ids),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": _ids}),
]
Floats = Annotated[
    NDArray[np.float32],
    BeforeValidator(to_float32),
    AfterValidator(_flat),
    PlainSerializer(_numbers),
    WithJsonSchema(_vector),
]
FloatRows = Annotated[
    NDArray[np.float32], BeforeValidator(to_float32), PlainSerializer(_numbers), WithJsonSchema(_matrix)
]
Flags = Annotated[
    NDArray[np.bool_],
    BeforeValidator(to_bool),
    AfterValidator(_flat),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": {"type": "boolean"}}),
]
FlagRows = Annotated[
    NDArray[np.bool_],
    BeforeValidator(to_bool),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "boolean"}}}),
]
