"""Keys at the HTTP door: scopes, rates and budgets, and a file that is refused in one sentence."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from tutelage.queue.base import Job
from tutelage.queue.memory import MemoryQueue
from tutelage.teacher.app import routes
from tutelage.teacher.callers import SCOPES
from tutelage.teacher.keys import Key, Scope, find_key, read_keys
from tutelage_client.errors import InvalidInput, ProblemResponse
from tutelage_client.wire import ExactMatch, GenerateRequest, RewardItem, RewardRequest, encode_request


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def entry(name: str, secret: str | None = None, **limits: Any) -> str:
    fields = {"name": name, "sha256": digest(secret or name)} | limits
    return "[[keys]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())


def keys_file(folder: Path, *entries: str) -> Path:
    path = folder / "keys.toml"
    path.write_text("\n".join(entries))
    return path


async def refusal(call: Any) -> tuple[int, str, str]:
    with pytest.raises(ProblemResponse) as refused:
        await call
    return refused.value.status, refused.value.code, refused.value.detail


async def test_a_key_may_do_what_its_scopes_say(start_teacher: Any, request_for: Any, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, entry("writer", scopes=["generate"]))
    item = RewardItem(prompt="p", completion="c", reference="c")
    grading = RewardRequest(reward=ExactMatch(), items=[item])
    async with start_teacher(keys_file=keys, key="writer") as teacher:
        assert (await teacher.client.generate(GenerateRequest(prompts=["t1"], max_tokens=2))).generations
        assert await refusal(teacher.client.score(request_for())) == (
            403,
            "out_of_scope",
            "the key 'writer' lacks the scope 'score'; it has generate",
        )
        assert (await refusal(teacher.client.reward(grading)))[1] == "out_of_scope"
        assert (await refusal(teacher.client.head()))[1] == "out_of_scope"
        assert (await teacher.client.info()).name == "toy"


def test_every_route_that_does_work_has_a_scope() -> None:
    posts = {route.path for route in routes.routes if isinstance(route, APIRoute) and "POST" in (route.methods or ())}
    assert posts
    assert posts <= SCOPES.keys()


async def test_a_key_over_its_rate_is_told_when_to_come_again(
    start_teacher: Any, request_for: Any, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, entry("slow", requests_per_s=0.01), entry("other"))
    async with start_teacher(keys_file=keys, key="slow") as teacher:
        await teacher.client.score(request_for())
        answer = await teacher.http.post("/v1/score", json={"sequences": [{"token_ids": [1, 2], "score_start": 1}]})
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 100
        assert "key slow may ask for 0.01 requests a second" in answer.json()["detail"]
        other = await teacher.http.get("/v1/usage", headers={"authorization": "Bearer other"})
        assert (other.json()["account"], other.json()["tokens"]) == ("key other", 0)


async def test_a_spent_budget_is_a_hard_stop_and_the_usage_says_so(
    start_teacher: Any, request_for: Any, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, entry("small", budget_tokens=12, budget_usd=1.0))
    settings = {"keys_file": keys, "accounts_file": tmp_path / "accounts.db", "usd_per_million_input": 2.0}
    async with start_teacher(key="small", **settings) as teacher:
        await teacher.client.score(request_for([3, 4, 5]))  # four tokens go through the model, five may
        spent = await teacher.client.usage()
        assert (spent.account, spent.tokens, spent.usd, spent.budget_tokens) == ("key small", 4, 8e-6, 12)
        await teacher.client.score(request_for([3, 4, 5]))
        status, code, detail = await refusal(teacher.client.score(request_for([3, 4, 5])))
        assert (status, code) == (402, "budget_spent")
        assert detail.startswith("key small has spent 8 of 12 tokens and this request may take 5; ")
        metric = teacher.app.state.registry.get_sample_value
        assert metric("tutelage_teacher_spent_tokens", {"account": "key small"}) == 8
        assert metric("tutelage_teacher_spent_usd", {"account": "key small"}) == 16e-6
    async with start_teacher(key="small", **settings) as teacher:
        assert (await teacher.client.usage()).tokens == 8
        await teacher.client.score(request_for([3, 4]))


async def test_concurrent_requests_over_http_stay_within_the_budget(
    start_teacher: Any, request_for: Any, tmp_path: Path
) -> None:
    keys = keys_file(tmp_path, entry("small", budget_tokens=100))
    async with start_teacher(keys_file=keys, accounts_file=tmp_path / "a.db", key="small") as teacher:
        asked = [teacher.client.score(request_for([3, 4, 5])) for _ in range(60)]
        results = await asyncio.gather(*asked, return_exceptions=True)
        spent = (await teacher.client.usage()).tokens
    refused = [result.code for result in results if isinstance(result, ProblemResponse)]
    assert set(refused) == {"budget_spent"}
    assert spent == 4 * (60 - len(refused)) <= 100


async def test_a_request_that_fails_costs_nothing(start_teacher: Any, request_for: Any, tmp_path: Path) -> None:
    keys = keys_file(tmp_path, entry("small", budget_tokens=100))
    async with start_teacher(poison=True, keys_file=keys, accounts_file=tmp_path / "a.db", key="small") as teacher:
        assert (await refusal(teacher.client.score(request_for([13]))))[1] == "engine_failed"
        assert (await teacher.client.usage()).tokens == 0


async def test_a_run_pays_for_its_jobs_and_for_what_it_asks_over_http(
    start_teacher: Any, request_for: Any, tmp_path: Path
) -> None:
    queue, payload = MemoryQueue(), encode_request(request_for([3, 4, 5]))
    settings = {"accounts_file": tmp_path / "a.db", "run_budget_tokens": 12}
    async with start_teacher(queue=queue, run_id="run-1", **settings) as teacher:
        await teacher.client.score(request_for([3, 4, 5]))
        for name in ("a", "b"):
            await queue.put([Job(id=name, queue="toy", reply_to=name, run_id="run-1", tokens=5, payload=payload)])
            answers, _ = await queue.answers(name, after="0", wait_s=10)
            assert (answers[0].payload is None) == (name == "b")
        assert "run run-1 has spent 8 of 12 tokens and this request may take 5" in str(answers[0].reason)


async def test_the_header_of_a_run_must_be_an_id(start_teacher: Any) -> None:
    async with start_teacher() as teacher:
        answer = await teacher.http.get("/v1/usage", headers={"Tutelage-Run": "no id"})
    assert (answer.status_code, answer.json()["field"]) == (422, "Tutelage-Run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[keys]]\nname = 'a'", "keys.0.sha256"),
        ("[[keys]", "is not TOML"),
        (entry("a", burst=3), "unknown key 'burst'"),
        (entry("a", budget_tokens=-1), "keys.0.budget_tokens"),
        (entry("a", scopes=["admin"]), "keys.0.scopes"),
        (entry("a") + entry("a", "b"), "has the name 'a' twice"),
        (entry("a") + entry("b", "a"), "has the sha256"),
        ("", "holds no key"),
        ("secret", "line 1 is not a sha256 in hex"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=r"keys\.toml") as refused:
        read_keys(keys_file(tmp_path, text))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_budget_that_could_not_be_kept_is_refused_at_the_start(start_teacher: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="a budget needs --accounts-file"):
        async with start_teacher(keys_file=keys_file(tmp_path, entry("a", budget_tokens=1))):
            pass
    with pytest.raises(InvalidInput, match="a budget in USD needs prices"):
        async with start_teacher(accounts_file=tmp_path / "a.db", run_budget_usd=1.0):
            pass


def test_only_the_whole_key_with_the_right_scheme_is_found() -> None:
    keys = [Key(name="a", sha256=digest("secret")), Key(name="b", sha256=digest("other"))]
    assert find_key(keys, "Bearer other") == keys[1]
    assert find_key(keys, "bearer  secret ") == keys[0]
    assert [find_key(keys, header) for header in ("", "Basic secret", "Bearer secre", digest("secret"))] == [None] * 4
    assert keys[0].scopes == frozenset(Scope)
