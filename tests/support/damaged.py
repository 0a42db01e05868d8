"""Bodies that are nearly a score request as bytes, changed in tensors, metadata, header or the bytes themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tutelage_client.wire import Completion, ScoreGroup, ScoreRequest, Signal, encode_request
from tutelage_client.wire.tensors import load, save

DTYPES = (np.int64, np.int32, np.uint8, np.bool_, np.float32)
WIDE = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 8)
SCORED = Completion(token_ids=np.array([3, 4, 5]), candidate_ids=np.array([[1], [2], [3]]))
WHOLE = encode_request(
    ScoreRequest(
        sequences=(ScoreGroup(prompt_ids=np.array([1, 2]), completions=(SCORED, SCORED)),),
        signals=frozenset({Signal.SAMPLED, Signal.TOP_K, Signal.CANDIDATES}),
        top_k=3,
    )
)
CONTROLS = (
    *({"signals": ["sampled", "candidates"], "top_k": top_k} for top_k in (None, 0, 10**30, 1.5)),
    {"sequences": []},
    {"signals": "sampled", "surprise": {}},
    [],
    None,
)
TEXTS = ("[" * 3000, "{", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), *map(json.dumps, CONTROLS))

SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
TYPES = st.sampled_from([*SIZES, "F64", "", "i64"])
# Nothing at all may have a huge axis beside one of 0. Longer ones than these would take a test's own memory.
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 6, -1, True, 2**20, 2**31, 2**70, 1.0, None, "2"]), max_size=4)
PLACES = st.lists(st.sampled_from([0, 1, 8, 24, -8, False, 2**63, 2**70, 0.0, None, "0"]), max_size=3)
CHANGES = {"dtype": TYPES, "shape": SHAPES, "data_offsets": PLACES}
MOST_BYTES = 1 << 20


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    """Sound safetensors; some of the arrays, or the text beside them, are others."""
    arrays: dict[str, Any] = dict(load(WHOLE)[0])
    for name in draw(st.sets(st.sampled_from([*arrays, "surprise"]), max_size=3)):
        dtype = draw(st.sampled_from(DTYPES))
        values = WIDE if dtype is np.int64 else None
        shape = hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=7)
        arrays[name] = draw(hnp.arrays(dtype, shape, elements=values))
    text = draw(st.sampled_from(TEXTS) | st.just('{"signals": ["sampled", "candidates"]}'))
    return save(arrays, {draw(st.sampled_from(["score-request.v1"] * 4 + ["score-reply.v1"])): text})


@st.composite
def bytes_of(draw: st.DrawFn) -> bytes:
    """The whole body, cut off and with a few bytes changed."""
    body = bytearray(WHOLE[: draw(st.integers(0, len(WHOLE)))] if draw(st.booleans()) else WHOLE)
    for at in draw(st.lists(st.integers(0, len(WHOLE) - 1), max_size=4)):
        body[min(at, len(body) - 1) : at + 1] = bytes([draw(st.integers(0, 255))])
    return bytes(body)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """The whole body under a header in which arrays have other types, shapes and places, or stand for none."""
    begin = 8 + int.from_bytes(WHOLE[:8], "little")
    header: dict[str, Any] = json.loads(WHOLE[8:begin])
    names = [name for name in header if name != "__metadata__"]
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        header[name] |= draw(
            st.fixed_dictionaries({}, optional={"dtype": TYPES, "shape": SHAPES, "data_offsets": PLACES})
        )
    if draw(st.booleans()):
        _lay_out(header, names)
    body = WHOLE[begin:] if draw(st.booleans()) else bytes(max(_end(header[name]) for name in names))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def _lay_out(header: dict[str, Any], names: Sequence[str]) -> None:
    """Give the arrays the places that their types and shapes take, as far as they make sense."""
    end = 0
    for name in names:
        begin = end
        axes = [axis for axis in header[name]["shape"] if isinstance(axis, int)]
        end += math.prod(axes) * SIZES.get(header[name]["dtype"], 1)
        header[name]["data_offsets"] = [begin, end]


def _end(entry: dict[str, Any]) -> int:
    """Where an array would end, as far as a body can be so long."""
    places = entry["data_offsets"]
    return places[1] if len(places) == 2 and isinstance(places[1], int) and 0 <= places[1] < MOST_BYTES else 0


def repeating() -> bytes:
    """Sound but for a candidate that one row names twice."""
    twice = Completion(token_ids=np.array([3, 4]), candidate_ids=np.array([[1, 2], [3, 5]]))
    group = ScoreGroup(prompt_ids=np.array([1]), completions=(twice,))
    arrays, texts = load(encode_request(ScoreRequest(sequences=(group,), signals=frozenset({Signal.CANDIDATES}))))
    return save({**arrays, "candidate_ids": np.array([1, 2, 5, 5], dtype=np.int32)}, texts)


binary = tensors() | bytes_of() | headers() | st.just(WHOLE)
