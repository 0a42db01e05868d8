"""Named arrays as one safetensors body, bfloat16 included, which numpy does not know. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, deserialize, serialize

from tutelage_client.errors import InvalidInput

EntryDtype = Literal["float32", "float16", "bfloat16"]
_DTYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "U8": np.uint8, "BOOL": np.bool_}


def save(arrays: Mapping[str, NDArray[Any]], metadata: dict[str, str], bfloat16: Collection[str] = ()) -> bytes:
    """A body. bfloat16: names whose arrays are the bits of that type, uint16"""
    held = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    specs = {
        name: TensorSpec(
            dtype="bfloat16" if name in bfloat16 else array.dtype.name,
            shape=array.shape,
            data_ptr=array.ctypes.data,
            data_len=array.nbytes,
        )
        for name, array in held.items()
    }
    return bytes(serialize(specs, metadata=metadata))


def load(body: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of a body, bfloat16 as float32.

    Raises:
        SafetensorError: it is none. KeyError: a type that numpy does not know.
    """
    return {name: _array(view) for name, view in deserialize(body)}


def narrow(array: NDArray[np.float32], dtype: EntryDtype) -> NDArray[Any]:
    """Rounded to the nearest; bfloat16 as its bits, uint16. NaN and infinity stay what they are.

    Raises:
        InvalidInput: a finite number that float16 cannot hold.
    """
    if dtype == "float32":
        return array
    if dtype == "bfloat16":
        bits = array.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
        rounded[np.isnan(array)] = 0x7FC0
        return rounded
    with np.errstate(over="ignore"):
        narrowed = array.astype(np.float16)
    if (np.isinf(narrowed) & np.isfinite(array)).any():
        raise InvalidInput("a number is over 65504, the most that float16 holds; ask for bfloat16", "entry_dtype")
    return narrowed


def _array(view: Mapping[str, Any]) -> NDArray[Any]:
    if view["dtype"] == "BF16":
        bits = np.frombuffer(view["data"], dtype=np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(view["shape"])
    return np.frombuffer(view["data"], dtype=_DTYPES[view["dtype"]]).reshape(view["shape"])
