"""What a hosted API bills for scores is charged to whoever asked, also where the scores are of no use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tutelage.engines import FakeOptions, ReplicatedOptions, UpstreamOptions, open_engine
from tutelage.engines.fakes import APPS, ToyServer, Trap, listening
from tutelage.engines.upstream.failures import BadAnswer, UpstreamFailed
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.errors import BadScores
from tutelage_client.wire import RUN_HEADER, GenerateRequest, ScoreGroup, Signal, Usage

SAMPLED = frozenset({Signal.SAMPLED})
FORMS: list[tuple[Trap, ...]] = [(), ("no_prompt_logprobs",)]  # vLLM's, and echo


def group_of(*completions: list[int]) -> ScoreGroup:
    return ScoreGroup.model_validate({"prompt_ids": [5, 9], "completions": [{"token_ids": ids} for ids in completions]})


def options_of(url: str, tokenizer: Path, **more: Any) -> UpstreamOptions:
    options = {"kind": "openai", "upstream": url, "model": str(tokenizer), "max_top_k": 5, "upstream_model": "toy"}
    return UpstreamOptions.model_validate(options | more)


async def open_before(url: str, tokenizer: Path, deadline_s: float = 60.0) -> Any:
    return await open_engine(options_of(url, tokenizer, deadline_s=deadline_s), "toy")


@asynccontextmanager
async def connected(
    tokenizer: Path, *traps: Trap, form: tuple[Trap, ...] = FORMS[1]
) -> AsyncGenerator[tuple[Any, ToyServer]]:
    """The traps are set once it has connected, and what was billed until then is forgotten."""
    toy = ToyServer(FakeOptions(vocabulary_size=97, max_length=64), form)
    async with listening(APPS["openai"](toy)) as url:
        engine = await open_before(url, tokenizer)
        await engine.connect()
        toy.traps, toy.billed_tokens = frozenset(form) | frozenset(traps), 0
        try:
            yield engine, toy
        finally:
            await engine.close()


def tokens(usage: Usage) -> int:
    return usage.forward_tokens + usage.generated_tokens


@pytest.mark.parametrize("form", FORMS, ids=["prompt_logprobs", "echo"])
async def test_scores_cost_what_the_upstream_bills_its_written_token_included(
    form: tuple[Trap, ...], toy_tokenizer_dir: Path
) -> None:
    async with connected(toy_tokenizer_dir, form=form) as (engine, toy):
        _, usage = await engine.score([group_of([1, 2, 3], [4])], SAMPLED, None)
        assert usage == Usage(scored_tokens=4, forward_tokens=5 + 3, generated_tokens=2)
        assert toy.billed_tokens == tokens(usage)
        toy.traps = frozenset({*toy.traps, "no_usage"})
        assert (await engine.score([group_of([1, 2, 3], [4])], SAMPLED, None))[1] == usage, "the most of each call"


@pytest.mark.parametrize("form", FORMS, ids=["prompt_logprobs", "echo"])
async def test_scores_that_are_refused_are_billed(form: tuple[Trap, ...], toy_tokenizer_dir: Path) -> None:
    async with connected(toy_tokenizer_dir, "row_short", form=form) as (engine, toy):
        with pytest.raises(BadAnswer) as refused:
            await engine.score([group_of([1, 2, 3])], SAMPLED, None)
    assert isinstance(refused.value, BadScores) and refused.value.flaw == "length"
    assert toy.billed_tokens == tokens(refused.value.usage) > 0


async def test_the_answers_beside_the_one_that_is_refused_are_billed(toy_tokenizer_dir: Path) -> None:
    async with connected(toy_tokenizer_dir, "lapses") as (engine, toy):
        with pytest.raises(BadAnswer) as refused:
            await engine.score([group_of([1, 2, 3], [4, 5]), group_of([6] * 9)], SAMPLED, None)
    assert toy.billed_tokens == tokens(refused.value.usage) > 5 + 1


@pytest.mark.parametrize("trap", ["forbidden", "broken"])
async def test_what_ended_in_an_error_status_costs_nothing(trap: Trap, toy_tokenizer_dir: Path) -> None:
    async with connected(toy_tokenizer_dir, trap) as (engine, _):
        with pytest.raises(UpstreamFailed) as failed:
            await engine.score([group_of([1, 2, 3], [4])], SAMPLED, None)
    assert failed.value.usage == Usage()


async def test_a_call_that_was_refused_for_a_limit_and_repeated_is_billed_once(toy_tokenizer_dir: Path) -> None:
    async with connected(toy_tokenizer_dir, "overloaded") as (engine, toy):
        toy.calls = 0
        _, usage = await engine.score([group_of([1, 2, 3])], SAMPLED, None)
        assert toy.calls > 1, "some were refused"
    assert toy.billed_tokens == tokens(usage) == 5 + 1


async def test_what_was_never_sent_costs_nothing(toy_tokenizer_dir: Path) -> None:
    async with connected(toy_tokenizer_dir) as (engine, _):
        known = engine.capabilities
    engine = await open_before("http://127.0.0.1:9", toy_tokenizer_dir, deadline_s=0.2)
    engine.capabilities = known
    with pytest.raises(UpstreamFailed) as failed:
        await engine.generate(GenerateRequest(prompts=[[1, 2]], max_tokens=3))
    assert failed.value.usage == Usage()
    await engine.close()


async def test_scores_that_both_replicas_give_in_vain_are_billed_by_both(toy_tokenizer_dir: Path) -> None:
    toys = [hosted() for _ in range(2)]
    async with listening(APPS["openai"](toys[0])) as one, listening(APPS["openai"](toys[1])) as other:
        options = tuple(options_of(url, toy_tokenizer_dir, fail_fast=True) for url in (one, other))
        engine = await open_engine(ReplicatedOptions(replicas=options), "toy")
        await engine.connect()
        for toy in toys:
            toy.traps = frozenset({*toy.traps, "row_short"})
            toy.billed_tokens = 0
        with pytest.raises(BadAnswer) as refused:
            await engine.score([group_of([1, 2, 3])], SAMPLED, None)
        await engine.close()
    assert tokens(refused.value.usage) == sum(toy.billed_tokens for toy in toys) == 2 * (5 + 1)


async def test_text_costs_what_the_upstream_bills(toy_tokenizer_dir: Path) -> None:
    async with connected(toy_tokenizer_dir) as (engine, toy):
        _, usage = await engine.generate(GenerateRequest(prompts=[[1, 2], [3]], max_tokens=4, n=2))
    assert toy.billed_tokens == tokens(usage) > 0


@dataclass(frozen=True)
class Asking:
    """A teacher before the hosted API, asked on behalf of a run."""

    http: httpx2.AsyncClient

    async def scores(self, completion: list[int], *, top_k: int | None = None) -> int:
        """The status of the answer. What asks for the same signals may be scored together."""
        body: dict[str, Any] = {"sequences": [{"token_ids": [5, 9, *completion], "score_start": 2}]}
        body |= {} if top_k is None else {"top_k": top_k, "signals": ["top_k"]}
        return (await self.http.post("/v1/score", json=body)).status_code

    async def spent_tokens(self) -> int:
        return (await self.http.get("/v1/usage")).json()["tokens"]


@asynccontextmanager
async def teacher(toy: ToyServer, tokenizer: Path, accounts: Path, *traps: Trap, **more: Any) -> AsyncGenerator[Asking]:
    """The traps are set after its start, and what was billed until then is forgotten."""
    settings = {"engine": "openai", "upstream": "http://unused", "model": str(tokenizer), "canary_every_s": 3600}
    settings |= {"accounts_file": accounts} | more
    async with listening(APPS["openai"](toy)) as url:
        app = build_app(Settings.model_validate(settings), await open_before(url, tokenizer))
        transport = httpx2.ASGITransport(app)
        headers = {RUN_HEADER: "run-1"}
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as http,
        ):
            toy.traps = frozenset({*toy.traps, *traps})
            toy.billed_tokens = 0
            yield Asking(http)


def hosted() -> ToyServer:
    return ToyServer(FakeOptions(vocabulary_size=97, max_length=64), FORMS[1])


async def test_an_upstream_that_bills_for_scores_of_no_use_is_stopped_by_the_budget(
    tmp_path: Path, toy_tokenizer_dir: Path
) -> None:
    toy = hosted()
    async with teacher(toy, toy_tokenizer_dir, tmp_path / "a.db", "row_short", run_budget_tokens=40) as asking:
        before = toy.calls
        statuses = [await asking.scores([1, 2, 3]) for _ in range(12)]
        assert statuses == [502] * 6 + [402] * 6
        assert await asking.spent_tokens() == toy.billed_tokens == 6 * (5 + 1)
        assert toy.calls - before == 6


async def test_requests_that_were_scored_together_in_vain_pay_for_it_and_for_the_repetition(
    tmp_path: Path, toy_tokenizer_dir: Path
) -> None:
    toy = hosted()
    async with teacher(toy, toy_tokenizer_dir, tmp_path / "a.db", "lapses") as asking:
        statuses = await asyncio.gather(*(asking.scores([1 + i] * (1 + i % 7)) for i in range(40)))
        assert set(statuses) <= {200, 502} and 502 in statuses
        assert await asking.spent_tokens() == toy.billed_tokens


async def test_the_parts_of_a_request_that_went_well_are_charged_when_another_one_fails(
    tmp_path: Path, toy_tokenizer_dir: Path
) -> None:
    toy = hosted()
    async with teacher(toy, toy_tokenizer_dir, tmp_path / "a.db", "lapses", max_batch_tokens=8) as asking:
        sequence = {"token_ids": [5, 9, 1, 2, 3], "score_start": 2}
        answer = await asking.http.post("/v1/score", json={"sequences": [sequence] * 6})
        assert (answer.status_code, answer.json()["code"]) == (502, "bad_scores")
        assert await asking.spent_tokens() == toy.billed_tokens > 5 + 1


async def test_refused_calls_leave_the_account_alone(tmp_path: Path, toy_tokenizer_dir: Path) -> None:
    toy = hosted()
    async with teacher(toy, toy_tokenizer_dir, tmp_path / "a.db", "forbidden") as asking:
        assert await asking.scores([1, 2, 3]) == 502
        assert await asking.spent_tokens() == 0
