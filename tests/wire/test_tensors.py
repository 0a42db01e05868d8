"""Bodies of arrays: the safetensors library reads what is written here, and what it writes is read here."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import SafetensorError

from tutelage_client.wire.tensors import load, save

KINDS = (np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_)
ARRAYS = st.dictionaries(
    st.text(max_size=9).filter(lambda name: name != "__metadata__"),
    hnp.arrays(st.sampled_from(KINDS), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)),
    max_size=5,
)
TEXTS = st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=2)


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and np.array_equal(ours[name], theirs[name], equal_nan=True)
        for name in ours
    )


@given(ARRAYS, TEXTS)
def test_the_library_reads_what_is_written_and_it_is_read_back(arrays: dict[str, Any], texts: dict[str, str]) -> None:
    body = save(arrays, texts)
    assert same(safetensors.numpy.load(body), arrays)
    read, metadata = load(body)
    assert same(read, arrays)
    assert metadata == texts
    assert not any(array.flags.writeable for array in read.values())


@given(ARRAYS, TEXTS)
def test_what_the_library_writes_is_read(arrays: dict[str, Any], texts: dict[str, str]) -> None:
    read, metadata = load(safetensors.numpy.save(arrays, texts or None))
    assert same(read, arrays)
    assert metadata == texts


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=3), st.integers(0, 200))
def test_changed_bytes_are_refused_wherever_the_library_refuses_them(changes: list[tuple[int, int]], cut: int) -> None:
    body = bytearray(save({"a": np.arange(6, dtype=np.int32).reshape(2, 3), "b": np.ones(2, np.float32)}, {"c": "d"}))
    for at, byte in changes:
        body[at % len(body)] = byte
    del body[len(body) - cut :]
    try:
        safetensors.numpy.load(bytes(body))
    except SafetensorError:
        with pytest.raises(ValueError, match=r"."):
            load(bytes(body))


def body_of(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: Any, begin: Any, end: Any, dtype: Any = "U8") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"short",
        (2**62).to_bytes(8, "little") + b"{}",
        body_of(b"\xff\xfe"),
        body_of(b"[" * 100_000),
        body_of([]),
        body_of({"__metadata__": {"a": 1}}),
        body_of({"__metadata__": ["a"]}),
        body_of({"a": []}),
        body_of({"a": {"dtype": "U8", "shape": [1]}}, b"x"),
        body_of({"a": entry([1], 0, 1)}),
        body_of({"a": entry([1], 0, 1)}, b"xy"),
        body_of({"a": entry([1], 1, 2)}, b"xy"),
        body_of({"a": entry([2], 0, 2), "b": entry([2], 1, 3)}, b"xyz"),
        body_of({"a": entry([1], 0, 1, "F64")}, b"x"),
        body_of({"a": entry([1], 0, 1, ["U8"])}, b"x"),
        body_of({"a": entry([-1], 0, -1)}),
        body_of({"a": entry([True], 0, 1)}, b"x"),
        body_of({"a": entry(["1"], 0, 1)}, b"x"),
        body_of({"a": entry([0, 2**40], 0, 0)}),
        body_of({"a": entry([0] + [2**30] * 5, 0, 0)}),
        body_of({"a": entry([1] * 99, 0, 1)}, b"x"),
        body_of({"a": entry([1], "0", "1")}, b"x"),
    ],
)
def test_a_header_that_does_not_describe_the_body_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load(body)
