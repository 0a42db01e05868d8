"""Numpy arrays as pydantic fields: lists in JSON, arrays in Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

from tutelage_client.wire.sentences import shown

PADDING = -1  # stands in a row of ids where there is none
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


def to_int32(value: Any, lowest: int = _INT32.min, pads: str = "") -> NDArray[np.int32]:
    """Raises: ValueError: it holds something else than whole numbers from `lowest` on, or one that is no token id.

    pads: what a refusal says besides of the numbers that are allowed
    """
    array = _listed(value, "token ids")
    if array.size and (
        _hides(value, array, "iu") or array.min() < lowest or (array.dtype != np.int32 and array.max() > _INT32.max)
    ):
        rule = f"token ids are whole numbers from {max(lowest, 0)} to {_INT32.max}{pads}"
        _refuse_strays(value, rule, lambda each: _is_a(each, int) and lowest <= each <= _INT32.max)
    return _owned(array, np.int32)


def to_float32(value: Any) -> NDArray[np.float32]:
    """Raises: ValueError: it holds something else than numbers and nulls, or one that no float can be."""
    array = _listed(value, "numbers or null")
    if _hides(value, array, "iuf"):  # a null makes it an array of objects
        _refuse_strays(
            value, "numbers or null are expected here", lambda each: each is None or _is_a(each, int | float)
        )
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinity
            return _owned(array, np.float32)
    except OverflowError as error:
        raise ValueError("a number is beyond what a float can be; the largest is 1.8e308") from error


def to_bool(value: Any) -> NDArray[np.bool_]:
    """Raises: ValueError: it holds something else than true and false, or bytes that are 1 and 0."""
    array = _listed(value, "true or false")
    if array.size and (array.dtype.kind not in "bu" or array.max() > 1):
        raise ValueError("true or false are expected here, in every place")
    return _owned(array, np.bool_)


def _listed(value: Any, what: str) -> NDArray[Any]:
    if not isinstance(value, list | tuple | np.ndarray):
        raise ValueError(f"give a list of {what}")  # noqa: TRY004 - pydantic wants a ValueError
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"the lists of {what} differ in length; give rows of one length") from error


def _hides(value: Any, array: NDArray[Any], kinds: str) -> bool:
    """Whether numbers came with something else. Numpy takes true for 1, so what became 1 or 0 is looked at again."""
    if array.size and array.dtype.kind not in kinds:
        return True
    if isinstance(value, np.ndarray):
        return False
    entries = value
    for _ in range(1, array.ndim):
        entries = list(itertools.chain.from_iterable(entries))
    return any(type(entries[i]) is bool for i in np.flatnonzero((array == 0) | (array == 1)).tolist())


def _refuse_strays(value: Any, rule: str, allowed: Callable[[Any], bool]) -> None:
    """Name the first entry that is not allowed, and what is."""
    for place, each in _entries(value):
        if not allowed(each):
            *row, entry = place
            where = f"entry {entry}" if not row else f"entry {entry} of row {', '.join(map(str, row))}"
            raise ValueError(f"{where} is {shown(each)}; {rule}")


def _entries(value: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """What lists in lists hold, in order, and where."""
    for i, each in enumerate(value.tolist() if isinstance(value, np.ndarray) else value):
        if isinstance(each, list | tuple | np.ndarray):
            yield from _entries(each, (*place, i))
        else:
            yield (*place, i), each.item() if isinstance(each, np.generic) else each


def _is_a(each: Any, kind: Any) -> bool:
    return isinstance(each, kind) and not isinstance(each, bool)


def _owned(array: NDArray[Any], dtype: type[Number]) -> NDArray[Number]:
    """Numbers that nobody else changes: a copy, but not of what cannot be written, such as a view of a body."""
    return array.astype(dtype, copy=array.flags.writeable)


def _ids(value: Any) -> NDArray[np.int32]:
    return to_int32(value, lowest=0)


def _rows_of_ids(value: Any) -> NDArray[np.int32]:
    """Rows of ids to [rows, width]."""
    if isinstance(value, np.ndarray):
        return _padded_ids(value)
    if not isinstance(value, list | tuple) or not all(isinstance(row, list | tuple | np.ndarray) for row in value):
        raise ValueError("give a list of token ids for each row")
    width = len(value[0]) if value else 0
    for i, row in enumerate(value):
        if len(row) != width:
            uneven = f"row {i} has {_counted(len(row))} and row 0 has {_counted(width)}"
            raise ValueError(f"{uneven}; give all as many, {PADDING} pads a shorter row")
    return _padded_ids(value).reshape(len(value), width)


def _padded_ids(value: Any) -> NDArray[np.int32]:
    return to_int32(value, lowest=PADDING, pads=f", and {PADDING} pads")


def _counted(ids: int) -> str:
    return f"{ids} id{'s' * (ids != 1)}"


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
_matrix = {"type": "array", "items": _vector}

TokenIds = Annotated[
    NDArray[np.int32],
    BeforeValidator(_ids),
    AfterValidator(_flat),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": int(_INT32.max)}}),
]
IdRows = Annotated[
    NDArray[np.int32],
    BeforeValidator(_rows_of_ids),
    PlainSerializer(lambda a: a.tolist()),
    WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}),
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
