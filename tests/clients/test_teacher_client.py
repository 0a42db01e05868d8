"""The teacher's client against scripted answers: what it repeats and what it refuses to believe."""

from __future__ import annotations

import httpx2
import numpy as np
import pytest
from safetensors.numpy import save

from tutelage_client.errors import BadScores, ProblemResponse, ServiceUnreachable
from tutelage_client.http import RetryPolicy
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import (
    MEDIA_TYPE,
    GenerateReply,
    GenerateRequest,
    Provenance,
    ScoreReply,
    ScoreRequest,
    ScoreSequence,
    TokenScores,
    Usage,
    decode_request,
    encode_reply,
)

QUICK = RetryPolicy(deadline_s=2.0, first_wait_s=0.001, longest_wait_s=0.002)
WHO = Provenance(
    teacher="t",
    model="m",
    model_revision="r",
    tokenizer_fingerprint="f",
    engine="e",
    engine_version="1",
    dtype="float32",
)
REQUEST = ScoreRequest(sequences=(ScoreSequence(token_ids=np.array([1, 2, 3], dtype=np.int32), score_start=1),))
BLOCK = TokenScores(start=1, valid=np.array([True, True]), sampled_logprob=np.array([-1.0, -np.inf], dtype=np.float32))
REPLY = ScoreReply(scores=(BLOCK,), provenance=WHO, usage=Usage(scored_tokens=2))


class Script:
    """Answers with the next of `answers`; the last one stays."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self) -> TeacherClient:
        return TeacherClient("http://teacher", transport=httpx2.MockTransport(self), retry=QUICK)


async def test_a_score_goes_and_comes_as_bytes() -> None:
    script = Script(httpx2.Response(200, content=encode_reply(REPLY)))
    async with script.client() as client:
        reply = await client.score(REQUEST)
    np.testing.assert_array_equal(reply.scores[0].arrays()["sampled_logprob"], [-1.0, -np.inf])
    sent = script.requests[0]
    assert (sent.headers["content-type"], sent.headers["accept"]) == (MEDIA_TYPE, MEDIA_TYPE)
    np.testing.assert_array_equal(decode_request(sent.content).groups()[0].prompt_ids, [1])


async def test_a_score_is_asked_for_again_over_a_short_outage() -> None:
    good = httpx2.Response(200, content=encode_reply(REPLY))
    script = Script(httpx2.ConnectError("refused"), httpx2.Response(503), good)
    async with script.client() as client:
        assert (await client.score(REQUEST)).usage == REPLY.usage
    assert len({request.content for request in script.requests}) == 1
    assert len(script.requests) == 3


@pytest.mark.parametrize("body", [b"", b"garbage", encode_reply(REPLY)[:-3]])
async def test_a_damaged_reply_is_bad_scores(body: bytes) -> None:
    async with Script(httpx2.Response(200, content=body)).client() as client:
        with pytest.raises(BadScores):
            await client.score(REQUEST)


async def test_a_refusal_keeps_its_code_and_is_not_repeated() -> None:
    problem = {"title": "t", "status": 422, "code": "capability_missing", "detail": "no entropy", "field": "signals"}
    script = Script(httpx2.Response(422, json=problem, headers={"content-type": "application/problem+json"}))
    async with script.client() as client:
        with pytest.raises(ProblemResponse) as caught:
            await client.score(REQUEST)
    assert (caught.value.code, caught.value.field, len(script.requests)) == ("capability_missing", "signals", 1)


@pytest.mark.parametrize(("seed", "temperature", "sent"), [(None, 1.0, 1), (3, 1.0, 2), (None, 0.0, 2)])
async def test_only_text_that_would_be_the_same_is_asked_for_again(
    seed: int | None, temperature: float, sent: int
) -> None:
    reply = GenerateReply(generations=[], provenance=WHO, usage=Usage())
    script = Script(httpx2.ReadError("cut"), httpx2.Response(200, content=reply.model_dump_json()))
    async with script.client() as client:
        request = GenerateRequest(prompts=["x"], seed=seed, temperature=temperature)
        if sent == 1:
            with pytest.raises(ServiceUnreachable):
                await client.generate(request)
        else:
            assert await client.generate(request) == reply
    assert len(script.requests) == sent


async def test_a_head_is_read_and_a_spoilt_one_is_refused() -> None:
    weight = np.ones((4, 2), dtype=np.float32)
    async with Script(httpx2.Response(200, content=save({"weight": weight}))).client() as client:
        np.testing.assert_array_equal((await client.head())["weight"], weight)
    spoilt = weight.copy()
    spoilt[0, 0] = np.nan
    for body in (b"garbage", save({"bias": weight}), save({"weight": spoilt})):
        async with Script(httpx2.Response(200, content=body)).client() as client:
            with pytest.raises(BadScores):
                await client.head()
