"""Score blocks survive both of their forms, and nothing that is not a score becomes one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire import (
    Completion,
    Provenance,
    ScoreGroup,
    ScoreReply,
    ScoreRequest,
    Signal,
    TokenScores,
    Usage,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

SPEAKER = Provenance(
    teacher="toy",
    model="m",
    model_revision="1",
    tokenizer_fingerprint="f",
    engine="fake",
    engine_version="1",
    dtype="float32",
)
ids = st.integers(0, 2**31 - 1)


def floats(values: Any, valid: Any) -> np.ndarray:
    array = np.array(values, dtype=np.float32)
    array[~np.asarray(valid)] = np.nan
    return array


def block_of(seed: int, k: int = 3) -> TokenScores:
    """One block with every array that a teacher can send; about a third of its values are -inf or not valid."""
    rng = np.random.default_rng(seed)
    rows, c = int(rng.integers(1, 6)), int(rng.integers(1, 5))
    valid, covered = rng.random(rows) < 0.7, rng.random((rows, c)) < 0.7

    def logprobs(*shape: int) -> np.ndarray:
        return np.where(rng.random(shape) < 0.3, -np.inf, -rng.exponential(5, shape)).astype(np.float32)

    return TokenScores(
        start=int(rng.integers(1, 9)),
        valid=valid,
        sampled_logprob=floats(logprobs(rows), valid),
        topk_ids=np.argsort(rng.random((rows, 50)), axis=1)[:, :k].astype(np.int32) * 40_000_000,
        topk_logprob=floats(np.sort(logprobs(rows, k))[:, ::-1] - np.float32(np.log(max(k, 1))), valid),
        topk_rest_mass=floats(rng.random(rows), valid),
        candidate_logprob=floats(logprobs(rows, c) - np.float32(np.log(c)), covered),
        candidate_valid=covered,
        entropy=floats(rng.exponential(2, rows), valid),
        hidden=floats(rng.normal(size=(rows, 2)), valid),
    )


blocks = st.integers(0, 2**32 - 1).map(block_of)


def assert_equal(one: TokenScores, other: TokenScores) -> None:
    assert one.start == other.start
    assert one.arrays().keys() == other.arrays().keys()
    for name, array in one.arrays().items():
        assert array.dtype == other.arrays()[name].dtype, name
        assert np.array_equal(array, other.arrays()[name], equal_nan=array.dtype.kind == "f"), name


@settings(deadline=None)
@given(blocks)
def test_a_block_survives_json(block: TokenScores) -> None:
    assert_equal(TokenScores.model_validate_json(block.model_dump_json(exclude_none=True)), block)


@settings(deadline=None)
@given(st.lists(blocks, max_size=4))
def test_a_reply_survives_its_bytes(scores: list[TokenScores]) -> None:
    reply = ScoreReply(scores=tuple(scores), provenance=SPEAKER, usage=Usage(scored_tokens=3, forward_tokens=4))
    body = encode_reply(reply)
    again = decode_reply(body)
    assert (again.provenance, again.usage, len(again.scores)) == (SPEAKER, reply.usage, len(scores))
    for one, other in zip(scores, again.scores, strict=True):
        assert_equal(one, other)
    assert encode_reply(again) == body


def once_or_padding(token_id: int) -> object:
    """Equal only for one and the same token; padding may stand in a row as often as it likes."""
    return token_id if token_id >= 0 else object()


@st.composite
def requests(draw: Any) -> ScoreRequest:
    asks = draw(st.booleans())

    def completion() -> Completion:
        tokens = draw(st.lists(ids, min_size=1, max_size=5))
        width = draw(st.integers(1, 3))
        row = st.lists(st.integers(-1, 2**31 - 1), min_size=width, max_size=width, unique_by=once_or_padding)
        rows = draw(st.lists(row, min_size=len(tokens), max_size=len(tokens)))
        return Completion(token_ids=np.array(tokens), candidate_ids=np.array(rows) if asks else None)

    groups = tuple(
        ScoreGroup(
            prompt_ids=np.array(draw(st.lists(ids, min_size=1, max_size=4))),
            completions=tuple(completion() for _ in range(draw(st.integers(1, 3)))),
        )
        for _ in range(draw(st.integers(1, 3)))
    )
    signals = {Signal.CANDIDATES} if asks else {Signal.SAMPLED}
    top_k = draw(st.none() | st.integers(1, 50))
    return ScoreRequest(
        sequences=groups, signals=frozenset(signals | ({Signal.TOP_K} if top_k else set())), top_k=top_k
    )


@settings(deadline=None)
@given(requests())
def test_a_request_survives_both_forms(request: ScoreRequest) -> None:
    body = encode_request(request)
    for again in (decode_request(body), ScoreRequest.model_validate_json(request.model_dump_json())):
        assert (again.signals, again.top_k) == (request.signals, request.top_k)
        assert encode_request(again) == body


def test_null_is_minus_infinity_where_valid_and_nan_where_not() -> None:
    block = TokenScores.model_validate_json(
        '{"start": 1, "valid": [true, false, true], "sampled_logprob": [null, null, -1],'
        ' "candidate_logprob": [[null, null], [null, -2], [-1, -1]],'
        ' "candidate_valid": [[true, false], [false, true], [true, true]]}'
    )
    np.testing.assert_array_equal(block.sampled_logprob, np.array([-np.inf, np.nan, -1], dtype=np.float32))
    np.testing.assert_array_equal(block.candidate_logprob, [[-np.inf, np.nan], [np.nan, -2], [-1, -1]])


@pytest.mark.parametrize("row", [0, 255, 256, 599])
def test_no_row_of_a_large_block_escapes(row: int) -> None:
    ids, logprob = np.tile(np.arange(64, dtype=np.int32), (600, 1)), np.full((600, 64), -5.0, dtype=np.float32)
    arrays: dict[str, Any] = {"topk_logprob": logprob, "topk_rest_mass": np.zeros(600, dtype=np.float32)}
    block = TokenScores(start=1, valid=np.ones(600, dtype=bool), topk_ids=ids, **arrays)
    assert block.rows == 600
    ids[row, 7] = 8
    with pytest.raises(ValueError, match="repeats an id"):
        TokenScores(start=1, valid=np.ones(600, dtype=bool), topk_ids=ids, **arrays)


TOP = {"topk_ids": [[1, 2]], "topk_logprob": [[-1.0, -2.0]], "topk_rest_mass": [0.1]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"start": 0}, "start is at least 1"),
        ({"sampled_logprob": np.array([np.nan])}, "NaN in a row that is marked valid"),
        ({"sampled_logprob": [0.5]}, "a log-probability is at most 0"),
        ({"sampled_logprob": [np.inf]}, "a log-probability is at most 0"),
        ({"sampled_logprob": [-1.0, -1.0]}, "expected 1 rows"),
        ({"sampled_logprob": [[-1.0]]}, "one list"),
        ({"valid": [False], "sampled_logprob": [0.0]}, "such a row is NaN"),
        (TOP | {"topk_logprob": [[-2.0, -1.0]]}, "must descend"),
        (TOP | {"topk_ids": [[1, 1]]}, "repeats an id"),
        (TOP | {"topk_logprob": [[-0.1, -0.2]]}, "add up to 1.724"),
        (TOP | {"topk_ids": [[1, -1]]}, "negative id"),
        (TOP | {"topk_ids": [[1, 2, 3]]}, "agree in shape"),
        (TOP | {"topk_logprob": [[np.nan, np.nan]]}, "topk_logprob"),
        (TOP | {"topk_rest_mass": [1.5]}, "between 0 and 1"),
        ({"topk_ids": [[1]], "topk_logprob": [[-1.0]]}, "must come together"),
        ({"candidate_logprob": [[-1.0]]}, "must come together"),
        ({"candidate_logprob": [[0.1]], "candidate_valid": [[True]]}, "at most 0"),
        (
            {"candidate_logprob": [[-0.1, -0.2]], "candidate_valid": [[True, True]]},
            "candidate_logprob add up to 1.724",
        ),
        ({"candidate_logprob": [[-1.0]], "candidate_valid": [[False]]}, "such a row is NaN"),
        ({"entropy": [-1.0]}, "entropy"),
        ({"entropy": [np.inf]}, "entropy"),
        ({"hidden": [[np.inf]]}, "hidden must be finite"),
        ({"valid": [2]}, "true or false"),
        (TOP | {"topk_ids": [[1.5, 2.5]]}, "whole numbers"),
        (
            TOP | {"topk_ids": [[1, 2**40]]},
            "entry 1 of row 0 is 1099511627776; token ids are whole numbers from 0 to 2147483647, and -1 pads",
        ),
        ({"surprise": [1]}, "surprise"),
    ],
)
def test_what_is_no_score_is_refused(fields: dict[str, Any], said: str) -> None:
    arrays = {name: np.array(v) if isinstance(v, list) else v for name, v in fields.items()}
    with pytest.raises(ValidationError, match=said):
        TokenScores.model_validate({"start": 1, "valid": np.array([True])} | arrays)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": 2, "rows": 1}, "asked were 1 from 2"),
        ({"start": 1, "rows": 2}, "asked were 2 from 1"),
        ({"start": 1, "rows": 1, "top_k": 3}, "2 top_k columns, asked were 3"),
        ({"start": 1, "rows": 1, "candidates": 1}, "none candidates columns"),
    ],
)
def test_a_block_that_answers_another_question_is_refused(asked: dict[str, Any], said: str) -> None:
    block = TokenScores.model_validate({"start": 1, "valid": [True]} | TOP)
    block.require(start=1, rows=1, top_k=2)
    with pytest.raises(BadScores, match=said):
        block.require(**asked)


REQUEST = encode_request(
    ScoreRequest(
        sequences=(ScoreGroup(prompt_ids=np.array([1]), completions=(Completion(token_ids=np.array([2, 3])),)),)
    )
)
REPLY = encode_reply(
    ScoreReply(
        scores=(TokenScores.model_validate({"start": 1, "valid": [True]} | TOP),), provenance=SPEAKER, usage=Usage()
    )
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_hostile_bytes_are_refused_in_the_words_of_the_contract(data: Any) -> None:
    body = bytearray(data.draw(st.sampled_from([REQUEST, REPLY])))
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    hostile = bytes(body[: data.draw(st.integers(0, len(body)))]) if data.draw(st.booleans()) else bytes(body)
    for decode in (decode_request, decode_reply):
        try:
            decode(hostile)
        except (BadScores, InvalidInput, ValidationError):
            continue


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_request(body)
    with pytest.raises(BadScores):
        decode_reply(body)
