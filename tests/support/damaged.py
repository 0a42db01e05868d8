"""Bodies that are nearly a score request as bytes: tensors changed, the metadata changed, or the bytes themselves."""

from __future__ import annotations

import json
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


binary = tensors() | bytes_of() | st.just(WHOLE)
