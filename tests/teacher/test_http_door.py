"""The HTTP door: scores in both forms, refusals in one sentence, and nothing bad that leaves."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

import damaged
import numpy as np
import pytest
from toy_teacher import WELL_IN_PROBE

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import (
    MEDIA_TYPE,
    Completion,
    ExactMatch,
    GenerateRequest,
    RewardItem,
    RewardRequest,
    ScoreGroup,
    ScoreReply,
    ScoreRequest,
    Signal,
    UnitTests,
    decode_reply,
    encode_request,
)
from tutelage_client.wire.tensors import save

ALL = frozenset(Signal)
JSON = "application/json"


def everything(rows: int = 3) -> ScoreRequest:
    ids = np.arange(3, 3 + rows, dtype=np.int32)
    completion = Completion(
        token_ids=ids, candidate_ids=np.stack([ids, np.full(rows, -1, dtype=np.int32), ids + 1], axis=1)
    )
    group = ScoreGroup(prompt_ids=np.array([1, 2]), completions=(completion, completion))
    return ScoreRequest(sequences=(group,), signals=ALL, top_k=4)


def sequence(*token_ids: float, **other: Any) -> dict[str, Any]:
    return {"token_ids": token_ids or (1, 2), "score_start": 1, **other}


async def test_every_signal_equals_what_the_engine_said(start_teacher: Any) -> None:
    request = everything()
    expected, usage = await FakeEngine(FakeOptions(), "toy").score(request.groups(), request.signals, request.top_k)
    async with start_teacher() as teacher:
        reply = await teacher.client.score(request)
        assert reply.provenance == teacher.engine.provenance
    assert reply.usage == usage
    assert len(reply.scores) == 2
    for got, wanted in zip(reply.scores, expected, strict=True):
        assert got.start == wanted.start
        for name, array in wanted.arrays().items():
            np.testing.assert_array_equal(got.arrays()[name], array)


async def test_json_and_bytes_carry_equal_scores_and_json_has_null_where_there_is_no_number(start_teacher: Any) -> None:
    request = everything()
    async with start_teacher() as teacher:
        as_text = request.model_dump_json(exclude_none=True)
        text = await teacher.http.post("/v1/score", content=as_text, headers={"content-type": JSON})
        binary = await teacher.http.post(
            "/v1/score", content=encode_request(request), headers={"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE}
        )
    assert (text.status_code, binary.status_code) == (200, 200)
    block = text.json()["scores"][0]
    assert [row[1] for row in block["candidate_logprob"]] == [None] * 3
    assert [row[1] for row in block["candidate_valid"]] == [False] * 3
    ours, theirs = ScoreReply.model_validate_json(text.content), decode_reply(binary.content)
    assert ours.usage == theirs.usage
    for a, b in zip(ours.scores, theirs.scores, strict=True):
        for name, array in b.arrays().items():
            np.testing.assert_allclose(a.arrays()[name], array, rtol=1e-6)


async def test_the_plain_json_of_a_person_is_understood(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        answer = await teacher.http.post("/v1/score", json={"sequences": [{"token_ids": [1, 2, 3], "score_start": 2}]})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == JSON
    assert answer.json()["scores"][0]["start"] == 2
    assert answer.json()["scores"][0]["sampled_logprob"][0] < 0


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"sequences": []}, "sequences", "it has 0 entries; give at least 1"),
        ({"sequences": [{"token_ids": [1, 2], "score_start": 2}]}, "sequences.0", "score_start is 2"),
        ({"sequences": [sequence(1, 40)]}, "sequences.0", "0 to 31"),
        (
            {"sequences": [sequence(1, -2)]},
            "sequences.0.token_ids",
            "entry 1 is -2; token ids are whole numbers from 0",
        ),
        ({"sequences": [sequence(1, True)]}, "sequences.0.token_ids", "entry 1 is true; token ids are whole numbers"),
        ({"sequences": [sequence(1, 2.5)]}, "sequences.0.token_ids", "whole numbers"),
        ({"sequences": [sequence(1, 2**31)]}, "sequences.0.token_ids", "2147483647"),
        ({"sequences": [{"token_ids": [], "score_start": 1}]}, "sequences.0", "has 0 tokens"),
        ({"sequences": [{"token_ids": [[1, 2], [3]], "score_start": 1}]}, "sequences.0.token_ids", "differ in length"),
        ({"sequences": [{"token_ids": [[1], [2]], "score_start": 1}]}, "sequences.0.token_ids", "one list"),
        ({"sequences": [{"token_ids": 7, "score_start": 1}]}, "sequences.0.token_ids", "a list of token ids"),
        ({"sequences": [sequence(*[1] * 65)]}, "sequences.0", "at most 64"),
        ({"sequences": [sequence()], "signals": ["top_k"], "top_k": 33}, "top_k", "at most 32"),
        ({"sequences": [sequence(*[1] * 40)] * 6}, "sequences", "at most 200"),
        (
            {"sequences": [sequence(candidate_ids=[[*range(9)]])], "signals": ["candidates"]},
            "sequences.0.candidate_ids",
            "at most 8",
        ),
        (
            {"sequences": [sequence(1, 2, 3, candidate_ids=[[4, 5], [6, 6]])], "signals": ["candidates"]},
            "sequences.0.candidate_ids",
            "row 1 repeats the id 6; name each id of a row once",
        ),
        (
            {"sequences": [sequence(1, 2, 3, candidate_ids=[[1, 2]])], "signals": ["candidates"]},
            "sequences.0",
            "1 rows for 2 scored tokens",
        ),
        (
            {"sequences": [sequence(1, 2, 3, candidate_ids=[[1, 2], [3]])], "signals": ["candidates"]},
            "sequences.0.candidate_ids",
            "row 1 has 1 id and row 0 has 2 ids; give all as many, -1 pads a shorter row",
        ),
        (
            {"sequences": [sequence(candidate_ids=[None])], "signals": ["candidates"]},
            "sequences.0.candidate_ids",
            "for each row",
        ),
        ({"sequences": [sequence()], "bogus": 1}, "bogus", "unknown key"),
    ],
)
async def test_what_cannot_be_scored_is_refused_with_its_field_and_limit(
    start_teacher: Any, body: dict[str, Any], field: str, said: str
) -> None:
    options = FakeOptions(max_length=64)
    async with start_teacher(options, max_request_tokens=200, max_candidates=8) as teacher:
        answer = await teacher.http.post("/v1/score", json=body)
        assert teacher.engine.calls == []
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["field"]) == (422, "invalid_input", field)
    assert said in problem["detail"]
    assert "\n" not in problem["detail"]


@pytest.mark.parametrize("body", [b"", b"{", bytes([255, 254]), b"[]"])
async def test_a_body_that_is_no_json_is_refused(start_teacher: Any, body: bytes) -> None:
    async with start_teacher() as teacher:
        answer = await teacher.http.post("/v1/score", content=body, headers={"content-type": JSON})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ((2**62).to_bytes(8, "little") + b"{}", "not safetensors"),
        ((2).to_bytes(8, "little") + b"[]", "not safetensors"),
        (save({"token_ids": np.ones(2, np.float32)}, {"score-request.v1": "{}"}), "token_ids is float32"),
        (save({"token_ids": np.ones(2, np.int32)}, {"score-request.v1": "{}"}), "'row_splits' is missing"),
        (save({"token_ids": np.ones(2, np.int32)}, {"other.v1": "{}"}), "expected 'score-request.v1'"),
        (save({"token_ids": np.ones((1, 2), np.int32)}, {"score-request.v1": "{}"}), "token_ids has the shape (1, 2)"),
        (damaged.repeating(), "row 1 repeats the id 5"),
        (save({"row_splits": np.ones((2**20, 0), np.int64)}, {"score-request.v1": "{}"}), "row_splits has the shape"),
    ],
)
async def test_a_binary_body_that_claims_what_it_is_not_is_refused(start_teacher: Any, body: bytes, said: str) -> None:
    async with start_teacher() as teacher:
        answer = await teacher.http.post("/v1/score", content=body, headers={"content-type": MEDIA_TYPE})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert said in answer.json()["detail"]


async def test_a_prompt_to_continue_has_tokens_and_every_stop_a_text(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        for body, field, said in (
            ({"prompts": ["t1"], "stop": ["t9", ""]}, "stop.1", "at least 1"),
            ({"prompts": [[1, -1]]}, "prompts.0", "whole numbers from 0"),
            ({"prompts": [[1, 2.0]]}, "prompts.0", "whole numbers from 0"),
            ({"prompts": [[{"role": "user"}]]}, "prompts.0", "a role and a content"),
        ):
            answer = await teacher.http.post("/v1/generate", json=body)
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (422, "invalid_input")
            assert problem["field"].startswith(field)
            assert said in str(problem["errors"])


@pytest.mark.parametrize("cut", [0, 4, 60, -1])
async def test_a_damaged_binary_body_is_refused(start_teacher: Any, cut: int) -> None:
    async with start_teacher() as teacher:
        answer = await teacher.http.post(
            "/v1/score", content=encode_request(everything())[:cut], headers={"content-type": MEDIA_TYPE}
        )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def in_bytes(*token_ids: int, candidates: list[int] | None = None, **asked: Any) -> bytes:
    """A request that no client of ours would send: nothing in it is checked."""
    ids = np.array(token_ids, dtype=np.int32)
    rows = None if candidates is None else np.array([candidates] * len(ids), dtype=np.int32)
    completion = Completion.model_construct(token_ids=ids, candidate_ids=rows)
    group = ScoreGroup.model_construct(prompt_ids=np.array([1], dtype=np.int32), completions=(completion,))
    signals = frozenset({Signal.SAMPLED, *([Signal.CANDIDATES] if candidates else []), *asked.pop("signals", ())})
    whole = {"signals": signals, "top_k": None, "entry_dtype": "float32", "own_batch": False} | asked
    return encode_request(ScoreRequest.model_construct(sequences=(group,), **whole))


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        (in_bytes(2, 40), "sequences.0", "0 to 31"),
        (in_bytes(2, -2), "token_ids", "entry 1 is -2; token ids are whole numbers from 0"),
        (in_bytes(*[1] * 64), "sequences.0", "at most 64"),
        (in_bytes(2, 3, signals=[Signal.TOP_K], top_k=33), "top_k", "at most 32"),
        (in_bytes(2, 3, candidates=list(range(9))), "sequences.0.candidate_ids", "at most 8"),
        (in_bytes(2, 3, candidates=[32]), "sequences.0.candidate_ids", "-1 to 31"),
    ],
)
async def test_what_cannot_be_scored_is_refused_in_bytes_as_in_text(
    start_teacher: Any, body: bytes, field: str, said: str
) -> None:
    async with start_teacher(FakeOptions(max_length=64), max_candidates=8) as teacher:
        answer = await teacher.http.post("/v1/score", content=body, headers={"content-type": MEDIA_TYPE})
        assert teacher.engine.calls == []
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_input")
    assert (problem.get("field") or "").startswith(field) and said in problem["detail"]


async def test_another_content_type_is_415_and_another_accept_is_406_with_what_goes(start_teacher: Any) -> None:
    packed = {"content-type": JSON, "content-encoding": "gzip"}
    async with start_teacher() as teacher:
        wrong_type = await teacher.http.post("/v1/score", content=b"x", headers={"content-type": "text/plain"})
        wrong_accept = await teacher.http.post("/v1/score", json={}, headers={"accept": "text/html"})
        bomb = await teacher.http.post("/v1/score", content=gzip.compress(bytes(10_000_000)), headers=packed)
    assert (wrong_type.status_code, wrong_type.json()["code"]) == (415, "unsupported_media_type")
    assert (wrong_accept.status_code, wrong_accept.json()["code"]) == (406, "not_acceptable")
    assert all(f"{JSON} or {MEDIA_TYPE}" in wrong.json()["detail"] for wrong in (wrong_type, wrong_accept))
    assert (bomb.status_code, bomb.json()["code"]) == (415, "unsupported_content_encoding")
    assert bomb.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (f"{MEDIA_TYPE}, {JSON}", MEDIA_TYPE),
        (f"{JSON}, {MEDIA_TYPE}", MEDIA_TYPE),
        (f"{MEDIA_TYPE};q=0, {JSON}", JSON),
        (f"{MEDIA_TYPE};q=0.2, {JSON}; Q=0.7", JSON),
        (f"{MEDIA_TYPE};q=0.7, {JSON};q=0.2", MEDIA_TYPE),
        (f"{JSON};q=0, */*", MEDIA_TYPE),
        (f"{MEDIA_TYPE};q=0, */*;q=0.1", JSON),
        (f"{JSON};q=0", None),
        ("*/*;q=0", None),
        (f"{JSON};q=2", None),
        (f"{JSON};q=nan", None),
    ],
)
async def test_the_more_welcome_form_is_answered_in(start_teacher: Any, accept: str, form: str | None) -> None:
    body = {"sequences": [sequence()]}
    async with start_teacher() as teacher:
        answer = await teacher.http.post("/v1/score", json=body, headers={"accept": accept})
    assert answer.headers["vary"] == "Accept"
    if form is None:
        assert (answer.status_code, answer.json()["field"]) == (406, "Accept")
    else:
        assert (answer.status_code, answer.headers["content-type"]) == (200, form)


class Blind(FakeEngine):
    """A teacher that only scores the sampled token and writes nothing."""

    def __init__(self) -> None:
        super().__init__(FakeOptions(), "toy")
        lacking = {"signals": frozenset({Signal.SAMPLED}), "generates": False}
        self.capabilities = self.capabilities.model_copy(update=lacking)


async def test_a_missing_capability_names_the_signal_and_the_teacher(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        teacher.engine.inner = Blind()
        for path, body, said in (
            ("/v1/score", {"sequences": [sequence()], "signals": ["entropy"]}, "'entropy'"),
            ("/v1/generate", {"prompts": ["t1"]}, "does not generate"),
            (
                "/v1/reward",
                {"items": [{"prompt": "p", "completion": "c"}], "reward": {"kind": "rubric", "rubric": "r"}},
                "'rubric'",
            ),
        ):
            answer = await teacher.http.post(path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (422, "capability_missing")
            assert said in answer.json()["detail"]
            assert "'toy'" in answer.json()["detail"]
        with pytest.raises(ProblemResponse) as caught:
            await teacher.client.head()
    assert caught.value.code == "capability_missing"


@pytest.mark.parametrize("fault", ["nan", "positive", "short"])
@pytest.mark.parametrize("accept", [MEDIA_TYPE, JSON])
async def test_bad_scores_never_leave_the_teacher(start_teacher: Any, fault: Any, accept: str) -> None:
    options = FakeOptions(faults=(*WELL_IN_PROBE, fault))
    async with start_teacher(options) as teacher:
        send = {"content": encode_request(everything()), "headers": {"content-type": MEDIA_TYPE, "accept": accept}}
        spoilt = await teacher.http.post("/v1/score", **send)
        sound = await teacher.http.post("/v1/score", **send)
    assert (spoilt.status_code, spoilt.json()["code"]) == (502, "bad_scores")
    assert sound.status_code == 200


async def test_an_engine_that_raises_is_502_without_its_words(start_teacher: Any, request_for: Any) -> None:
    async with start_teacher(poison=True) as teacher:
        with pytest.raises(ProblemResponse) as caught:
            await teacher.client.score(request_for([13]))
    assert (caught.value.status, caught.value.code) == (502, "engine_failed")
    assert "secret" not in caught.value.detail


async def test_the_head_turns_hidden_states_into_the_sampled_log_probs(start_teacher: Any) -> None:
    request = everything()
    async with start_teacher() as teacher:
        head = await teacher.client.head()
        block = (await teacher.client.score(request)).scores[0]
    assert block.hidden is not None
    assert block.sampled_logprob is not None
    logits = block.hidden @ head["weight"].T
    logprob = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ids = request.groups()[0].completions[0].token_ids
    np.testing.assert_allclose(logprob[np.arange(3), ids], block.sampled_logprob, atol=1e-4)


async def test_generation_is_repeatable_by_its_seed(start_teacher: Any) -> None:
    request = GenerateRequest(prompts=["t1", [1, 2]], n=2, max_tokens=5, seed=3)
    async with start_teacher() as teacher:
        first, again = await teacher.client.generate(request), await teacher.client.generate(request)
    assert first == again
    assert [len(row) for row in first.generations] == [2, 2]
    assert first.usage.generated_tokens > 0


async def test_rewards_are_graded_and_say_who_graded(start_teacher: Any) -> None:
    items = [RewardItem(prompt="1+1", completion=text, reference="2") for text in ("2", "3")]
    async with start_teacher() as teacher:
        reply = await teacher.client.reward(RewardRequest(items=items, reward=ExactMatch()))
    assert [reward.value for reward in reply.rewards] == [1.0, 0.0]
    assert reply.provenance.teacher == "toy"


async def test_code_is_run_only_where_the_operator_says_so(start_teacher: Any) -> None:
    item = RewardItem(prompt="Write add.", completion="def add(a, b): return a + b", reference="assert add(1, 2) == 3")
    asked = RewardRequest(items=[item], reward=UnitTests(timeout_s=30))
    async with start_teacher() as teacher:
        with pytest.raises(ProblemResponse, match="runs no code; start it with --run-code") as caught:
            await teacher.client.reward(asked)
    async with start_teacher(run_code=True) as teacher:
        reply = await teacher.client.reward(asked)
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "capability_missing", "reward.kind")
    assert [reward.value for reward in reply.rewards] == [1.0]


async def test_it_describes_itself_with_the_result_of_its_probe(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        info = await teacher.client.info()
    assert info.name == "toy"
    assert info.capabilities.signals == ALL
    assert info.probe["ok"] is True
    assert info.probe["worst_gap"] < 1e-5


async def test_too_much_waiting_work_is_503_with_retry_after(start_teacher: Any, request_for: Any, until: Any) -> None:
    async with start_teacher(max_waiting_tokens=5) as teacher:
        teacher.engine.gate.clear()
        working = asyncio.create_task(teacher.client.score(request_for()))
        await teacher.engine.started.wait()
        waiting = asyncio.create_task(teacher.client.score(request_for()))
        await until(lambda: teacher.app.state.scorer.batcher.waiting_tokens == 5)
        refused = await teacher.http.post("/v1/score", json={"sequences": [sequence()]})
        teacher.engine.gate.set()
        await asyncio.gather(working, waiting)
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (503, "overloaded", "1")


async def test_a_body_over_the_limit_is_413(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        answer = await teacher.http.post(
            "/v1/score", content=bytes(64 * 2**20 + 1), headers={"content-type": MEDIA_TYPE}
        )
        assert teacher.engine.calls == []
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_only_known_keys_pass_and_health_stays_open(start_teacher: Any, request_for: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# two keys\n{hashlib.sha256(b'one').hexdigest()}\n\n{hashlib.sha256(b'two').hexdigest()}\n")
    async with start_teacher(keys_file=keys, key="two") as teacher:
        await teacher.client.score(request_for())
        for header in ("", "Bearer three", "Basic two"):
            refused = await teacher.http.get("/v1/teacher", headers={"authorization": header})
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert refused.headers["www-authenticate"] == "Bearer"
            assert "three" not in refused.text
        for path in ("/healthz", "/health", "/readyz", "/metrics"):
            assert (await teacher.http.get(path, headers={"authorization": ""})).status_code == 200


async def test_metrics_count_tokens_and_outcomes_by_door(start_teacher: Any, request_for: Any) -> None:
    async with start_teacher() as teacher:
        before = (await teacher.http.get("/metrics")).text
        await teacher.client.score(request_for([3, 4, 5]))
        with pytest.raises(ProblemResponse):
            await teacher.client.score(request_for([99]))
        lines = (await teacher.http.get("/metrics")).text.splitlines()
    found = re.search(r"^tutelage_teacher_scored_tokens_total (\d+)", before, re.MULTILINE)
    assert found is not None
    assert f"tutelage_teacher_scored_tokens_total {int(found[1]) + 3}.0" in lines
    assert 'tutelage_teacher_requests_total{door="http",outcome="ok"} 1.0' in lines
    assert 'tutelage_teacher_requests_total{door="http",outcome="refused"} 1.0' in lines
    assert 'tutelage_http_requests_total{method="POST",route="/v1/score",status="200"} 1.0' in lines


async def test_a_teacher_whose_probe_fails_is_not_ready_until_it_passes(
    start_teacher: Any, request_for: Any, until: Any
) -> None:
    async with start_teacher(FakeOptions(faults=("nan",))) as teacher:
        ready = await teacher.http.get("/readyz")
        refused = await teacher.http.post("/v1/score", json={"sequences": [sequence()]})
        info = await teacher.client.info()
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert "NaN" in ready.json()["detail"]
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert info.probe["ok"] is False
        await until(lambda: teacher.app.state.scorer.not_ready is None)
        assert (await teacher.http.get("/readyz")).status_code == 200
        await teacher.client.score(request_for())


@pytest.mark.parametrize("many", [4097, 1_500_000])
@pytest.mark.parametrize("form", [JSON, MEDIA_TYPE])
async def test_more_sequences_than_are_read_at_once_are_refused_before_they_are(
    start_teacher: Any, form: str, many: int
) -> None:
    """The larger ones would take gigabytes and minutes to read."""
    one = b'{"token_ids":[1,2],"score_start":1}'
    body = b'{"sequences":[' + b",".join([one] * many) + b"]}"
    if form == MEDIA_TYPE:
        ids, splits = np.ones(many, np.int32), np.arange(many + 1)
        arrays = {"token_ids": ids, "prompt_ids": ids, "row_splits": splits, "prompt_splits": splits}
        body = save(arrays | {"completions_per_prompt": np.ones(many, np.int64)}, {"score-request.v1": "{}"})
    async with start_teacher() as teacher, asyncio.timeout(30):
        answer = await teacher.http.post("/v1/score", content=body, headers={"content-type": form})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_input")
    assert "at most 4096 go in one" in problem["detail"]
