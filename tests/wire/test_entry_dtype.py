"""What a reply loses when its entries travel in 16 bits: only their last digits, and never what a row has one of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    EntryDtype,
    Provenance,
    ScoreReply,
    ScoreRequest,
    TokenScores,
    Usage,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from tutelage_client.wire.tensors import narrow

PROVENANCE = Provenance.model_validate({name: "x" for name in Provenance.model_fields if name != "temperature"})
ROWS = 5


def reply(hidden: float = 1.2345678) -> ScoreReply:
    logprob = np.array([[-0.1234567, -2.3456789, -np.inf]] * ROWS, dtype=np.float32)
    valid = np.array([True] * (ROWS - 1) + [False])
    logprob[~valid] = np.nan
    one = np.where(valid, np.float32(-0.1234567), np.float32(np.nan))
    block = TokenScores(
        start=3,
        valid=valid,
        sampled_logprob=one,
        topk_ids=np.tile(np.array([7, 1, 4], dtype=np.int32), (ROWS, 1)),
        topk_logprob=logprob,
        topk_rest_mass=(np.abs(one) / 1e6).astype(np.float32),
        candidate_logprob=logprob,
        candidate_valid=np.repeat(valid[:, None], 3, 1),
        entropy=np.abs(one),
        hidden=np.where(valid[:, None], np.float32(hidden), np.float32(np.nan)),
    )
    return ScoreReply(scores=(block,), provenance=PROVENANCE, usage=Usage())


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 0.0), ("float16", 2**-11), ("bfloat16", 2**-8)])
def test_entries_are_rounded_and_the_rest_comes_back_bit_by_bit(dtype: EntryDtype, digits: float) -> None:
    sent = reply().scores[0].arrays()
    got = decode_reply(encode_reply(reply(), dtype)).scores[0].arrays()
    assert got.keys() == sent.keys()
    for name in sent:
        loss = digits if name in ("topk_logprob", "candidate_logprob", "hidden") else 0.0
        assert got[name].dtype == sent[name].dtype
        np.testing.assert_allclose(got[name], sent[name], rtol=loss, atol=0, equal_nan=True)


def test_a_number_that_float16_cannot_hold_is_refused_and_not_made_infinite() -> None:
    with pytest.raises(InvalidInput, match="ask for bfloat16"):
        encode_reply(reply(hidden=70_000.0), "float16")
    assert decode_reply(encode_reply(reply(hidden=70_000.0), "bfloat16")).scores[0].arrays()["hidden"][0, 0] == 70_144


@given(arrays(np.float32, 8, elements=st.floats(width=32)))
def test_bfloat16_rounds_as_torch_does(numbers: np.ndarray) -> None:
    bits = narrow(numbers, "bfloat16").astype(np.uint32) << 16
    expected = torch.from_numpy(numbers).bfloat16().float().numpy()
    np.testing.assert_array_equal(bits.view(np.float32), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_request_carries_what_it_asks_for(dtype: EntryDtype) -> None:
    asked = ScoreRequest.model_validate({"sequences": [{"token_ids": [1, 2], "score_start": 1}], "entry_dtype": dtype})
    assert decode_request(encode_request(asked)).entry_dtype == dtype


def test_sixteen_bits_save_a_quarter_and_half_of_a_wide_reply() -> None:
    rows, k, width = 2048, 64, 512
    draw = np.random.default_rng(0)
    common = {"start": 1, "valid": np.ones(rows, dtype=bool)}
    top = common | {
        "topk_ids": np.tile(np.arange(k, dtype=np.int32), (rows, 1)),
        "topk_logprob": -5 - np.sort(draw.random((rows, k), dtype=np.float32), 1),
        "topk_rest_mass": np.zeros(rows, dtype=np.float32),
        "sampled_logprob": np.full(rows, -1, dtype=np.float32),
    }
    states = common | {"hidden": draw.random((rows, width), dtype=np.float32)}
    top_k, hidden = (
        ScoreReply(scores=(TokenScores.model_validate(block),), provenance=PROVENANCE, usage=Usage())
        for block in (top, states)
    )
    assert len(encode_reply(top_k)) <= 8.2 * rows * k
    assert len(encode_reply(top_k, "float16")) <= 6.2 * rows * k
    assert len(encode_reply(hidden, "bfloat16")) <= 2.05 * width * rows
