"""Named arrays as one safetensors body, bfloat16 included, which numpy does not know. Nothing is unpickled.

The format is read and written here: its library copies every array out of a body and withholds the metadata.
A body is the length of its header (8 bytes, little-endian), the header as JSON, and the arrays end to end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json, to_json

from tutelage_client.errors import InvalidInput

EntryDtype = Literal["float32", "float16", "bfloat16"]
_WRITTEN = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_DTYPES = {name: np.dtype(written) for name, written in _WRITTEN.items()}  # uint16 holds the bits of bfloat16
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_MOST_IN_AN_AXIS = 2**31
_TILE = 16_384


def save(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """A body; an array of uint16 is the bits of bfloat16."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    parts: list[memoryview] = []
    end = 0
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):  # so that each begins aligned
        array = np.asarray(arrays[name], order="C")
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": array.shape, "data_offsets": (begin, end)}
        parts.append(array.data)
    text = to_json(header)
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def load(body: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays, views of the body except bfloat16, which becomes float32; and the metadata.

    Raises:
        ValueError: it is no such body, or an array in it is of another type.
    """
    begin = 8 + int.from_bytes(body[:8], "little")
    if not 8 < begin <= len(body):
        raise ValueError(f"a header of {begin - 8} bytes is not in a body of {len(body)}")
    try:
        header = from_json(body[8:begin])
        metadata = header.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("__metadata__ holds something else than texts")
        layout = _layout(header, len(body) - begin)
        return {name: _array(body, begin + at, dtype, shape) for name, at, dtype, shape in layout}, metadata
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"the header does not describe arrays ({type(error).__name__}: {error})") from error


def narrow(array: NDArray[np.float32], dtype: EntryDtype) -> NDArray[Any]:
    """Rounded to the nearest; bfloat16 as its bits, uint16. NaN and infinity stay what they are.

    Raises:
        InvalidInput: a finite number that float16 cannot hold.
    """
    if dtype == "float32":
        return array
    if dtype == "bfloat16":
        return _bfloat16(array)
    try:
        with np.errstate(over="raise"):
            return array.astype(np.float16)
    except FloatingPointError:
        message = "a number is over 65504, the most that float16 holds; ask for bfloat16"
        raise InvalidInput(message, "entry_dtype") from None


def _bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits, a tile at a time, so that what is computed in between stays in the processor's cache."""
    flat, rounded = array.reshape(-1), np.empty(array.size, dtype=np.uint16)
    for begin in range(0, array.size, _TILE):
        numbers, into = flat[begin : begin + _TILE], rounded[begin : begin + _TILE]
        bits = numbers.view(np.uint32)
        into[:] = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
        into[np.isnan(numbers)] = 0x7FC0
    return rounded.reshape(array.shape)


def _layout(header: Mapping[str, Any], size: int) -> Iterator[tuple[str, int, str, list[int]]]:
    """Name, offset, type and shape of each array. They must follow one another without gaps and end with the body."""
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, begin = entry["dtype"], entry["shape"], end
        if dtype not in _DTYPES:
            raise ValueError(f"{name} is {dtype}, and the types here are {', '.join(_DTYPES)}")
        for axis in shape:
            if type(axis) is not int or not 0 <= axis < _MOST_IN_AN_AXIS:
                raise ValueError(f"{name} has the shape {shape}")
        end += math.prod(shape) * _DTYPES[dtype].itemsize
        if entry["data_offsets"] != [begin, end]:
            raise ValueError(f"{name} lies at {entry['data_offsets']}, and by type and shape from {begin} to {end}")
        yield name, begin, dtype, shape
    if end != size:
        raise ValueError(f"the arrays take {end} bytes of {size}")


def _array(body: bytes, at: int, dtype: str, shape: list[int]) -> NDArray[Any]:
    array: NDArray[Any] = np.ndarray(shape, _DTYPES[dtype], body, at)
    if dtype != "BF16":
        return array
    bits = array.astype(np.uint32)
    bits <<= 16
    bits.flags.writeable = False  # as the views are, and as those need no copy
    return bits.view(np.float32)
