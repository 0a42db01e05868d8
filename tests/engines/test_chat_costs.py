"""What a hosted model bills is counted, whatever became of the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tutelage.engines import ChatOptions, FakeOptions, ReplicatedOptions, open_engine
from tutelage.engines.chat import ChatEngine
from tutelage.engines.fakes import APPS, ToyServer, Trap, listening
from tutelage.engines.upstream.failures import TryAgain, UpstreamFailed, UpstreamRefused
from tutelage.engines.upstream.tab import Tab, all_paid
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.wire import RUN_HEADER, GenerateRequest, Usage

MOST = Usage(forward_tokens=100, generated_tokens=10)
READ = 7  # tokens that the fake bills for each question
ASKED = GenerateRequest(prompts=["t1", "t2", "t3"], max_tokens=4)


@asynccontextmanager
async def connected(*traps: Trap, deadline_s: float = 10.0) -> AsyncGenerator[tuple[ChatEngine, ToyServer]]:
    toy = ToyServer(FakeOptions(vocabulary_size=97))
    async with listening(APPS["chat"](toy)) as url:
        engine = await open_engine(ChatOptions(upstream=url, upstream_model="toy", deadline_s=deadline_s), "toy")
        assert isinstance(engine, ChatEngine)
        await engine.connect()
        toy.traps = frozenset(traps)
        try:
            yield engine, toy
        finally:
            await engine.close()


async def bill_of(engine: ChatEngine, request: GenerateRequest = ASKED) -> Usage:
    with pytest.raises(UpstreamFailed) as failed:
        await engine.generate(request)
    return failed.value.usage


async def test_answers_of_no_use_are_billed_as_the_upstream_says() -> None:
    async with connected("calls_tools") as (engine, _):
        usage = await bill_of(engine, ASKED.model_copy(update={"prompts": ["t1"]}))
    assert (usage.forward_tokens, 1 <= usage.generated_tokens <= 4) == (READ, True)


async def test_a_call_that_is_never_answered_is_billed_at_its_most() -> None:
    async with connected("hangs", deadline_s=0.3) as (engine, _):
        usage = await bill_of(engine, ASKED.model_copy(update={"prompts": ["t1"], "n": 2}))
    assert usage.generated_tokens == 2 * 4
    assert usage.forward_tokens > READ


async def test_what_was_never_sent_or_ended_in_an_error_status_costs_nothing() -> None:
    for trap in ("forbidden", "broken"):
        async with connected(trap) as (engine, _):
            assert await bill_of(engine) == Usage(), "its siblings, which ended in the same, included"
    engine = await open_engine(ChatOptions(upstream="http://127.0.0.1:9", upstream_model="x", deadline_s=0.2), "toy")
    assert isinstance(engine, ChatEngine)
    assert await bill_of(engine) == Usage()
    await engine.close()


async def test_of_the_others_those_under_way_are_waited_for_and_no_other_begins() -> None:
    answering, begun = asyncio.Event(), 0

    async def answered(tab: Tab) -> None:
        nonlocal begun
        with tab.call(MOST) as call:
            begun += 1
            await answering.wait()
            call.answered({"usage": {"prompt_tokens": 5}})

    async def busy_then_again(tab: Tab) -> None:
        with contextlib.suppress(TryAgain), tab.call(MOST):
            await answering.wait()
            raise TryAgain("overloaded", "status 429", 3600)
        await asyncio.sleep(3600)
        await answered(tab)

    async def queued(tab: Tab) -> None:
        await asyncio.sleep(3600)
        await answered(tab)

    async def refused(tab: Tab) -> None:
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, answering.set)
        with tab.call(MOST):
            raise UpstreamRefused(400, "too long")

    with pytest.raises(UpstreamRefused, match="too long") as failed:
        await all_paid([answered, queued, refused, busy_then_again])
    assert failed.value.usage == Usage(forward_tokens=5)
    assert begun == 1


async def test_an_answer_without_a_usage_costs_its_most() -> None:
    async with connected("no_usage") as (engine, _):
        _, usage = await engine.generate(ASKED)
    assert usage.generated_tokens == 3 * 4


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 3}, Usage(forward_tokens=9, generated_tokens=3)),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
            Usage(forward_tokens=5, cached_tokens=4, generated_tokens=3),
        ),
        # Thoughts that are billed as output and counted in the total alone.
        (
            {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
            Usage(forward_tokens=20, generated_tokens=603),
        ),
        ({"prompt_tokens": 9, "completion_tokens": None}, Usage(forward_tokens=9)),
        ({"prompt_tokens": -9, "completion_tokens": 3}, MOST),
        ({"prompt_tokens": "9"}, MOST),
        (None, MOST),
        ([], MOST),
    ],
)
def test_the_usage_of_an_answer(said: Any, read: Usage) -> None:
    tab = Tab()
    with tab.call(MOST) as call:
        assert tab.usage == MOST, "before its end is known"
        call.answered({"usage": said})
    assert tab.usage == read


@pytest.mark.parametrize(
    ("error", "owed"),
    [
        (TryAgain("overloaded", "429"), Usage()),
        (TryAgain("broken", "500"), Usage()),
        (TryAgain("unreachable", "refused"), Usage()),
        (UpstreamRefused(400, "too long"), Usage()),
        (TryAgain("lost", "the connection broke"), MOST),
        (UpstreamFailed("not JSON"), MOST),
    ],
    ids=str,
)
def test_what_an_attempt_without_an_answer_costs(error: Exception, owed: Usage) -> None:
    tab = Tab()
    with pytest.raises(type(error)), tab.call(MOST):
        raise error
    with tab.call(MOST) as call:
        call.answered({"usage": {"prompt_tokens": 5}})
    assert tab.usage == owed + Usage(forward_tokens=5), "beside that of the repetition"


async def test_who_failed_is_paid_too_where_another_replica_answers(toy_tokenizer_dir: Path) -> None:
    toys = [ToyServer(FakeOptions(vocabulary_size=97)) for _ in range(2)]
    async with listening(APPS["chat"](toys[0])) as one, listening(APPS["chat"](toys[1])) as other:
        options = [ChatOptions(upstream=url, upstream_model="toy", fail_fast=True) for url in (one, other)]
        engine = await open_engine(ReplicatedOptions(replicas=tuple(options)), "toy")
        await engine.connect()
        toys[0].traps = frozenset({"calls_tools"})
        _, usage = await engine.generate(ASKED.model_copy(update={"prompts": ["t1"]}))
        await engine.close()
    assert usage.forward_tokens == 2 * READ


@asynccontextmanager
async def teacher(toy: ToyServer, accounts: Path, traps: Collection[Trap]) -> AsyncGenerator[httpx2.AsyncClient]:
    """Before the hosted model, with a budget of 100 tokens a run; the traps are set after its start."""
    settings = {"engine": "chat", "upstream": "http://unused", "upstream_model": "toy"}
    settings |= {"accounts_file": accounts, "run_budget_tokens": 100}
    async with listening(APPS["chat"](toy)) as url:
        engine = await open_engine(ChatOptions(upstream=url, upstream_model="toy"), "toy")
        app = build_app(Settings.model_validate(settings), engine)
        headers = {RUN_HEADER: "run-1"}
        transport = httpx2.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as client,
        ):
            toy.traps = frozenset(traps)
            yield client


async def test_an_upstream_that_bills_for_nothing_of_use_is_stopped_by_the_budget(tmp_path: Path) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=97))
    async with teacher(toy, tmp_path / "accounts.db", {"calls_tools"}) as client:
        before = toy.calls
        answers = [await client.post("/v1/generate", json={"prompts": ["t1"], "max_tokens": 4}) for _ in range(20)]
        assert {answer.status_code for answer in answers} == {502, 402}
        billed = (toy.calls - before) * READ
        spent = (await client.get("/v1/usage")).json()["tokens"]
    assert billed < spent <= 100, "the account holds what was read, and what was written"
    assert toy.calls - before < 10
