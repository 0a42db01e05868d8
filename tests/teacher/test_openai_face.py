"""The OpenAI-compatible routes: other people's formats, our scores, and nothing ignored that would change them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine, FakeTokenizer
from tutelage.teacher.spelling import Speller, offsets

LOGPROB_VV = FakeEngine(FakeOptions(), "toy").logprob_VV
PATH = "/v1/completions"


async def complete(teacher: Any, **body: Any) -> dict[str, Any]:
    answer = await teacher.http.post(PATH, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_echo_with_logprobs_scores_every_token_of_prompt_and_continuation(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        reply = await complete(
            teacher, model="toy", prompt="t3 t4 t5", echo=True, logprobs=2, max_tokens=2, temperature=0, seed=1
        )
    (choice,) = reply["choices"]
    columns = choice["logprobs"]
    ids = [int(token.strip().removeprefix("t")) for token in columns["tokens"]]
    assert ids[:3] == [3, 4, 5]
    assert columns["token_logprobs"][0] is columns["top_logprobs"][0] is None
    expected = LOGPROB_VV[ids[:-1], ids[1:]]
    np.testing.assert_allclose(columns["token_logprobs"][1:], expected, rtol=1e-5)
    for row, entries in zip(LOGPROB_VV[ids[:-1]], columns["top_logprobs"][1:], strict=True):
        best = sorted(entries.values(), reverse=True)[:2]
        np.testing.assert_allclose(best, np.sort(row)[::-1][:2], rtol=1e-5)
    assert max(columns["top_logprobs"][-1].values()) == columns["token_logprobs"][-1]  # it was written greedily
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": len(ids) - 3, "total_tokens": len(ids)}


async def test_offsets_point_at_the_tokens_in_the_text(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        reply = await complete(teacher, prompt=[1, 22, 3], echo=True, logprobs=0, max_tokens=0)
    (choice,) = reply["choices"]
    columns = choice["logprobs"]
    assert (choice["text"], choice["finish_reason"]) == ("t1 t22 t3", "length")
    assert columns["text_offset"] == [0, 2, 6]
    for token, at in zip(columns["tokens"], columns["text_offset"], strict=True):
        assert choice["text"][at:].startswith(token)
    assert [len(entries or ()) for entries in columns["top_logprobs"]] == [0, 1, 1]


async def test_prompt_logprobs_are_the_best_k_and_the_token_itself_by_id(start_teacher: Any) -> None:
    ids = [5, 9, 2, 30]
    async with start_teacher() as teacher:
        reply = await complete(teacher, prompt=[ids, ids[:1]], prompt_logprobs=3, max_tokens=1)
    long, short = (choice["prompt_logprobs"] for choice in reply["choices"])
    assert short == [None]
    assert long[0] is None
    for before, own, entries in zip(ids, ids[1:], long[1:], strict=False):
        order = np.argsort(-LOGPROB_VV[before], kind="stable")
        assert set(entries) == {str(i) for i in [*order[:3], own]}
        for token, entry in entries.items():
            place = int(np.flatnonzero(order == int(token))[0]) + 1
            assert entry["rank"] == min(place, 4)
            assert entry["decoded_token"].strip() == f"t{token}"
            assert math.isclose(entry["logprob"], LOGPROB_VV[before, int(token)], rel_tol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [("t1 t2", ["t1 t2"]), (["t1", "t2"], ["t1", "t2"]), ([1, 2], ["t1 t2"]), ([[1], [2, 3]], ["t1", "t2 t3"])],
)
async def test_a_prompt_is_text_or_ids_one_or_several(start_teacher: Any, prompt: Any, texts: list[str]) -> None:
    async with start_teacher() as teacher:
        reply = await complete(teacher, prompt=prompt, echo=True, max_tokens=0, n=2, return_token_ids=True)
    assert [choice["text"] for choice in reply["choices"]] == [text for text in texts for _ in range(2)]
    assert [choice["index"] for choice in reply["choices"]] == list(range(2 * len(texts)))
    assert reply["choices"][0]["prompt_token_ids"] == [int(word[1:]) for word in texts[0].split()]
    assert reply["choices"][0]["token_ids"] == []


async def test_written_tokens_come_with_the_models_own_log_probs(start_teacher: Any) -> None:
    """As TRL's client asks for them: neutral knobs, and tokens by id."""
    knobs = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0, "top_p": 1.0, "temperature": 1.0, "n": 2}
    asked = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": 0, "max_tokens": 4, "seed": 3}
    async with start_teacher() as teacher:
        reply = await complete(teacher, model="toy", prompt=[[7, 8]], **asked, **knobs)
    for choice in reply["choices"]:
        ids, columns = choice["token_ids"], choice["logprobs"]
        assert columns["tokens"] == [f"token_id:{i}" for i in ids]
        expected = LOGPROB_VV[[8, *ids[:-1]], ids]
        np.testing.assert_allclose(columns["token_logprobs"], expected, rtol=1e-5)


async def test_a_stop_string_cuts_the_text_with_and_without_echo(start_teacher: Any) -> None:
    asked: dict[str, Any] = {"prompt": "t1 t2", "temperature": 0, "max_tokens": 8}
    async with start_teacher() as teacher:
        whole = (await complete(teacher, **asked))["choices"][0]["text"]
        stop = whole.split()[1]
        plain = (await complete(teacher, **asked, stop=stop))["choices"][0]
        echoed = (await complete(teacher, **asked, stop=[stop], echo=True, logprobs=1))["choices"][0]
    assert (plain["text"], plain["finish_reason"]) == (whole[: whole.index(stop)], "stop")
    assert echoed["text"] == f"t1 t2 {plain['text']}"
    assert max(echoed["logprobs"]["text_offset"]) <= len(echoed["text"])


async def test_a_stream_has_every_text_whole_and_ends_with_done(start_teacher: Any) -> None:
    body = {"prompt": ["t1", "t2"], "seed": 1, "stream": True, "stream_options": {"include_usage": True}}
    async with start_teacher() as teacher:
        answer = await teacher.http.post(PATH, json=body)
        whole = await complete(teacher, prompt=["t1", "t2"], seed=1)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    *texts, last = [json.loads(event) for event in events]
    assert [chunk["choices"][0]["text"] for chunk in texts] == [choice["text"] for choice in whole["choices"]]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])


async def test_the_model_is_listed_under_the_teachers_name(start_teacher: Any) -> None:
    async with start_teacher(FakeOptions(max_length=64)) as teacher:
        (card,) = (await teacher.http.get("/v1/models")).json()["data"]
        assert (await teacher.http.get("/health")).status_code == 200
    assert (card["id"], card["owned_by"], card["max_model_len"]) == ("toy", "tutelage", 64)
    assert card["created"] > 1_700_000_000


REFUSED = {
    "no prompt": ({"prompt": None}, "prompt", "text"),
    "an empty list": ({"prompt": []}, "prompt", "text"),
    "an empty list of ids": ({"prompt": [[]]}, "prompt", "token ids"),
    "texts and ids mixed": ({"prompt": ["t1", [1]]}, "prompt", "text"),
    "a float id": ({"prompt": [1.5]}, "prompt", "whole"),
    "true as an id": ({"prompt": [True]}, "prompt", "whole"),
    "a negative id": ({"prompt": [-1]}, "prompt.0", "0 to 31"),
    "an id outside the vocabulary": ({"prompt": [[1], [32]]}, "prompt.1", "0 to 31"),
    "an id of forty digits": ({"prompt": [10**40]}, "prompt.0", "0 to 31"),
    "too long": ({"prompt": [1] * 65, "max_tokens": 0, "echo": True, "logprobs": 0}, "sequences.0", "at most 64"),
    "too long with the answer": ({"prompt": [1] * 60, "max_tokens": 5}, "prompts.0", "at most 64"),
    "too many log-probs": ({"logprobs": 33}, "logprobs", "at most 32"),
    "too many prompt log-probs": ({"prompt_logprobs": 33}, "prompt_logprobs", "at most 32"),
    "the whole vocabulary": ({"prompt_logprobs": -1}, "prompt_logprobs", "-1 is too small; give at least 0"),
    "another temperature of prompt scores": ({"prompt_logprobs": 1, "temperature": 0.7}, "temperature", "0.7"),
    "temperature 0 of prompt scores": ({"prompt_logprobs": 1, "temperature": 0}, "temperature", "temperature is 0"),
    "temperature 0 of both": (
        {"prompt_logprobs": 1, "echo": True, "logprobs": 1, "temperature": 0},
        "temperature",
        "0",
    ),
    "another temperature of echoed scores": ({"logprobs": 1, "echo": True, "temperature": 2}, "temperature", "2"),
    "a nucleus of scores": ({"logprobs": 1, "top_p": 0.9}, "top_p", "0.9"),
    "a bias": ({"logit_bias": {"5": 1}}, "logit_bias", "at most 0"),
    "a presence penalty": ({"presence_penalty": 0.5}, "presence_penalty", "leave it out"),
    "a repetition penalty": ({"repetition_penalty": 1.1}, "repetition_penalty", "leave it out"),
    "a suffix": ({"suffix": "end"}, "suffix", "''"),
    "the best of several": ({"best_of": 3}, "best_of", "n is 1"),
    "nothing at all": ({"max_tokens": 0}, "max_tokens", "echo"),
    "an unknown field": ({"guided_regex": "a"}, "guided_regex", "unknown key"),
    "an empty stop": ({"stop": [""]}, "stop.0", "at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_not_applied_is_refused_in_openais_shape(start_teacher: Any, case: str) -> None:
    body, field, said = REFUSED[case]
    async with start_teacher(FakeOptions(max_length=64)) as teacher:
        answer = await teacher.http.post(PATH, json={"prompt": "t1 t2"} | body)
        assert teacher.engine.calls == []
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_input")
    assert error["param"] == field
    assert said in error["message"]
    assert "\n" not in error["message"]


async def test_another_model_a_missing_key_and_a_broken_body_have_their_status(
    start_teacher: Any, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(hashlib.sha256(b"one").hexdigest())
    async with start_teacher(keys_file=keys, key="one") as teacher:
        other = await teacher.http.post(PATH, json={"prompt": "t1", "model": "gpt"})
        broken = await teacher.http.post(PATH, content=b"{", headers={"content-type": "application/json"})
        large = await teacher.http.post(PATH, content=bytes(64 * 2**20 + 1))
        keyless = await teacher.http.get("/v1/models", headers={"authorization": ""})
    got = [(answer.status_code, answer.json()["error"]["code"]) for answer in (other, broken, large, keyless)]
    assert got == [(404, "model_not_found"), (400, "invalid_input"), (413, "too_large"), (401, "unauthorized")]
    assert keyless.headers["www-authenticate"] == "Bearer"
    assert "'toy'" in other.json()["error"]["message"]


async def test_an_engine_that_raises_is_502_without_its_words(start_teacher: Any) -> None:
    async with start_teacher(poison=True) as teacher:
        answer = await teacher.http.post(PATH, json={"prompt": [1, 13], "echo": True, "logprobs": 1, "max_tokens": 0})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_failed")
    assert "secret" not in answer.text


async def test_a_bug_is_told_in_openais_shape_without_its_words(start_teacher: Any) -> None:
    class Broken:
        def encode(self, prompt: Any) -> list[int]:
            raise ZeroDivisionError(f"secret {prompt}")

    async with start_teacher() as teacher:
        teacher.engine.inner.tokenizer = Broken()
        answer = await teacher.http.post(PATH, json={"prompt": "t1", "max_tokens": 1})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (500, "internal", "server_error")
    assert "secret" not in answer.text


async def test_a_model_without_tokens_writes_and_refuses_the_rest(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        teacher.engine.shows_tokens = False
        reply = await complete(teacher, prompt="t1", seed=1, max_tokens=3)
        assert reply["choices"][0]["text"]
        assert reply["usage"]["completion_tokens"] > 0
        for field, value in (("logprobs", 1), ("prompt_logprobs", 1), ("echo", True), ("return_token_ids", True)):
            answer = await teacher.http.post(PATH, json={"prompt": "t1", field: value})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (400, "capability_missing", field)


class Bytes:
    """A tokenizer whose tokens are bytes, so that a character may take several; 255 ends a text."""

    special_ids = frozenset({255})

    def encode(self, prompt: Any) -> list[int]:
        return list(prompt.encode())

    def decode(self, token_ids: Any) -> str:
        shown = b"".join(b"<end>" if i == 255 else bytes([i]) for i in token_ids)
        return shown.decode(errors="replace")


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_pieces_of_bytes_make_the_text_again_whatever_it_is(text: str) -> None:
    speller, ids = Speller(Bytes()), list(text.encode())
    pieces = speller.pieces([*ids, 255])
    assert "".join(pieces) == f"{text}<end>"
    shown = speller.shown([*ids, 255], pieces)
    assert "".join(shown) == text
    assert all(text[at:].startswith(piece) for at, piece in zip(offsets(shown, text), shown, strict=True))


@given(st.lists(st.integers(0, 31), min_size=1, max_size=40))
def test_a_token_is_named_as_it_is_spelt_in_a_text(ids: list[int]) -> None:
    speller = Speller(FakeTokenizer(32))
    pieces = speller.pieces(ids)
    assert [speller.name(i, before) for before, i in itertools.pairwise(ids)] == pieces[1:]
