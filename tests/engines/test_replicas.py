"""Several upstreams of one model: who gets work, who gets none, and what happens to what was under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from subjects import group

from tutelage.engines import FakeOptions, ReplicatedOptions, UpstreamOptions, open_engine
from tutelage.engines.fake import FakeEngine
from tutelage.engines.fakes import ToyServer, Trap, listening
from tutelage.engines.fakes.vllm import vllm_app
from tutelage.engines.replicas import Replica, ReplicatedEngine
from tutelage.engines.upstream.failures import UpstreamAway, UpstreamFailed, UpstreamRefused
from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire import GenerateRequest, ScoreGroup, Signal, TokenScores, Usage

SAMPLED = frozenset({Signal.SAMPLED})
GROUP = group([1, 2], [[3, 4, 5]])


class Upstream(FakeEngine):
    """A toy that fails as it is told to, and holds its answers back while the gate is closed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(FakeOptions(seed=seed), "toy")
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.given_up = 0

    async def connect(self) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        return {}

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.failure is not None:
            raise self.failure
        return await super().score(groups, signals, top_k)


class Several:
    """Replicas a, b, ... of toys, the events that were told, and the engine over them."""

    def __init__(self, *upstreams: Upstream, hedge_after_s: float | None = None) -> None:
        self.upstreams = upstreams
        replicas = [Replica(name, upstream) for name, upstream in zip("abcd", upstreams, strict=False)]
        self.engine = ReplicatedEngine(replicas, hedge_after_s, first_pause_s=0.01)
        self.events: list[tuple[str, str]] = []
        for replica in replicas:
            replica.listen(lambda event, name=replica.name: self.events.append((name, event)))

    def asked(self) -> list[int]:
        return [view.asked for view in self.engine.views()]

    def reasons(self) -> list[str | None]:
        return [view.reason for view in self.engine.views()]


def sampled(blocks: Sequence[TokenScores]) -> NDArray[np.float32]:
    return np.concatenate([block.arrays()["sampled_logprob"] for block in blocks])


async def check_right(engine: ReplicatedEngine) -> None:
    blocks, _ = await engine.score([GROUP], SAMPLED, None)
    expected, _ = await FakeEngine(FakeOptions(), "toy").score([GROUP], SAMPLED, None)
    np.testing.assert_array_equal(sampled(blocks), sampled(expected))


async def test_work_goes_to_the_least_busy_one(until: Any) -> None:
    several = Several(Upstream(), Upstream())
    one, other = several.upstreams
    await several.engine.connect()
    one.gate.clear()
    other.gate.clear()
    large, small = group([1, 2], [[3] * 20]), group([1, 2], [[3]])
    task = asyncio.create_task(several.engine.score([large, small, small, small], SAMPLED, None))
    await until(lambda: sum(several.asked()) == 4)
    assert several.asked() == [1, 3]
    assert [view.outstanding_tokens for view in several.engine.views()] == [22, 9]
    one.gate.set()
    other.gate.set()
    blocks, usage = await task
    assert [block.rows for block in blocks] == [20, 1, 1, 1]
    assert usage.scored_tokens == 23
    assert [view.outstanding_tokens for view in several.engine.views()] == [0, 0]
    await several.engine.close()


async def test_one_that_fails_its_probe_gets_no_work_until_it_passes(until: Any) -> None:
    several = Several(Upstream(), Upstream())
    several.upstreams[1].failure = UpstreamAway("nobody is there")
    await several.engine.connect()
    for _ in range(4):
        await check_right(several.engine)
    assert several.asked() == [4, 0]
    assert several.reasons() == [None, "nobody is there"]
    several.upstreams[1].failure = None
    await until(lambda: several.engine.replicas[1].up)
    await check_right(several.engine)
    assert several.asked() == [4, 1]
    assert several.events.count(("b", "quarantined")) == 1
    await several.engine.close()


@pytest.mark.parametrize("odd_one", [0, 1, 2])
async def test_one_that_disagrees_with_the_others_gets_no_work(odd_one: int) -> None:
    upstreams = [Upstream(seed=5 if i == odd_one else 0) for i in range(3)]
    upstreams[odd_one].provenance = FakeEngine(FakeOptions(), "toy").provenance  # it does not say so itself
    several = Several(*upstreams)
    await several.engine.connect()
    for _ in range(4):
        await check_right(several.engine)
    assert several.asked()[odd_one] == 0
    assert "scores a known sequence differently from the others" in str(several.reasons()[odd_one])
    await several.engine.close()


async def test_one_that_disagrees_about_improbable_tokens_alone_gets_no_work(toy_tokenizer_dir: Path) -> None:
    odd: tuple[tuple[Trap, ...], ...] = ((), ("other_replica",), ())
    apps = [vllm_app(ToyServer(FakeOptions(vocabulary_size=97, max_length=64), traps)) for traps in odd]
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(listening(app)) for app in apps]
        async with over(urls, toy_tokenizer_dir) as engine:
            assert [view.up for view in engine.views()] == [True, False, True]
            assert "(a log-probability is off by" in str(engine.views()[1].reason)


@pytest.mark.parametrize("seeds", [(0, 5), (0, 5, 6), (0, 0, 5, 5)], ids=str)
async def test_none_is_believed_where_no_more_than_half_agree(seeds: tuple[int, ...]) -> None:
    upstreams = [Upstream(seed=seed) for seed in seeds]
    for upstream in upstreams:
        upstream.provenance = FakeEngine(FakeOptions(), "toy").provenance  # it does not say so itself
    several = Several(*upstreams)
    with pytest.raises(UpstreamAway, match="no more than half of the replicas score a known sequence alike"):
        await several.engine.connect()
    assert not any(view.up for view in several.engine.views())
    for upstream in upstreams[1:]:
        upstream.logprob_VV = upstreams[0].logprob_VV
    await several.engine.connect()
    await check_right(several.engine)
    await several.engine.close()


async def test_one_of_another_version_gets_no_work() -> None:
    several = Several(Upstream(), Upstream())
    other = several.upstreams[1]
    other.provenance = other.provenance.model_copy(update={"engine_version": "2"})
    await several.engine.connect()
    assert several.reasons() == [None, "its engine_version is '2', the others' is '1'"]
    await several.engine.close()


@pytest.mark.parametrize("failure", [UpstreamAway("gone"), UpstreamFailed("500"), BadScores("NaN")], ids=repr)
async def test_what_a_failing_one_had_in_hand_is_done_by_another(failure: Exception, until: Any) -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    first = several.upstreams[0]
    first.gate.clear()
    under_way = [asyncio.create_task(check_right(several.engine)) for _ in range(4)]
    await until(lambda: sum(several.asked()) == 4)
    first.failure = failure
    first.gate.set()
    await asyncio.gather(*under_way)
    assert several.reasons() == [str(failure), None]
    first.failure = None
    await until(lambda: several.engine.replicas[0].up)
    await several.engine.close()


async def test_a_request_that_breaks_every_one_quarantines_none() -> None:
    several = Several(Upstream(), Upstream(), Upstream())
    await several.engine.connect()
    for upstream in several.upstreams:
        upstream.failure = UpstreamFailed("status 500")
    with pytest.raises(UpstreamFailed, match="500"):
        await several.engine.score([GROUP], SAMPLED, None)
    assert sum(several.asked()) == 2  # it was tried once more, and once only
    assert several.reasons() == [None] * 3
    await several.engine.close()


async def test_a_refused_request_is_not_tried_again() -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    for upstream in several.upstreams:
        upstream.failure = UpstreamRefused(400, "too long")
    with pytest.raises(UpstreamRefused):
        await several.engine.score([GROUP], SAMPLED, None)
    assert sum(several.asked()) == 1
    await several.engine.close()


async def test_the_teacher_is_away_only_when_none_is_left(until: Any) -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    for upstream in several.upstreams:
        upstream.failure = UpstreamAway("gone")
    with pytest.raises(UpstreamAway, match="no replica is left: a: gone; b: gone"):
        await several.engine.score([GROUP], SAMPLED, None)
    with pytest.raises(UpstreamAway, match="no replica is left"):
        await several.engine.connect()
    several.upstreams[1].failure = None
    await several.engine.connect()
    await check_right(several.engine)
    await several.engine.close()


async def test_all_of_another_model_do_not_come_back_as_the_same_teacher() -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    for upstream in several.upstreams:
        upstream.provenance = upstream.provenance.model_copy(update={"model_revision": "new"})
    with pytest.raises(BadScores, match="answers as another model"):
        await several.engine.score([GROUP], SAMPLED, None)
    await several.engine.close()


async def test_a_slow_answer_is_hedged_and_the_loser_is_cancelled() -> None:
    several = Several(Upstream(), Upstream(), hedge_after_s=0.02)
    await several.engine.connect()
    for _ in range(18):
        await check_right(several.engine)
    several.upstreams[0].gate.clear()
    while several.upstreams[0].given_up == 0:
        await check_right(several.engine)
    views = several.engine.views()
    assert (views[1].hedged, views[1].hedge_won) == (1, 1)
    assert several.reasons() == [None, None]  # slow is not wrong
    await several.engine.close()


async def test_no_more_than_a_tenth_of_the_requests_is_hedged(until: Any) -> None:
    several = Several(Upstream(), Upstream(), hedge_after_s=0.001)
    await several.engine.connect()
    for upstream in several.upstreams:
        upstream.gate.clear()
    tasks = [asyncio.create_task(check_right(several.engine)) for _ in range(40)]
    await until(lambda: sum(several.asked()) >= 44)
    await asyncio.sleep(0.02)
    for upstream in several.upstreams:
        upstream.gate.set()
    await asyncio.gather(*tasks)
    assert sum(view.hedged for view in several.engine.views()) == 4
    await several.engine.close()


async def test_text_comes_whole_from_one() -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    asked = GenerateRequest(prompts=["t1", "t2"], n=2, max_tokens=5, seed=3)
    generations, _ = await several.engine.generate(asked)
    expected, _ = await FakeEngine(FakeOptions(), "toy").generate(asked)
    assert generations == expected
    assert sum(several.asked()) == 1
    await several.engine.close()


async def test_who_gives_up_is_not_worked_for_any_more() -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    several.upstreams[0].gate.clear()
    task = asyncio.create_task(several.engine.score([GROUP], SAMPLED, None))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    assert several.upstreams[0].given_up == 1
    assert several.engine.views()[0].outstanding_tokens == 0
    await several.engine.close()


async def test_a_mistake_of_the_caller_is_told_as_one() -> None:
    several = Several(Upstream(), Upstream())
    await several.engine.connect()
    with pytest.raises(InvalidInput, match="token id 99"):
        await several.engine.score([group([1], [[99]])], SAMPLED, None)
    await several.engine.close()


@asynccontextmanager
async def over(urls: Sequence[str], tokenizer_dir: Path) -> AsyncGenerator[ReplicatedEngine]:
    made = [UpstreamOptions(kind="vllm", upstream=url, model=str(tokenizer_dir), fail_fast=True) for url in urls]
    engine = await open_engine(ReplicatedOptions(replicas=tuple(made)), "toy")
    assert isinstance(engine, ReplicatedEngine)
    try:
        await engine.connect()
        yield engine
    finally:
        await engine.close()


async def test_a_server_that_breaks_loses_nothing_and_comes_back_after_its_probe(
    toy_tokenizer_dir: Path, until: Callable[..., Any]
) -> None:
    toys = [ToyServer(FakeOptions(vocabulary_size=97, max_length=64)) for _ in range(2)]
    groups = [group([5, i], [[20, 3, i]]) for i in range(30)]
    async with (
        listening(vllm_app(toys[0])) as staying,
        listening(vllm_app(toys[1])) as failing,
        over((staying, failing), toy_tokenizer_dir) as engine,
    ):
        before, _ = await engine.score(groups, SAMPLED, None)
        toys[1].traps = frozenset({"broken"})
        after, _ = await engine.score(groups, SAMPLED, None)
        np.testing.assert_array_equal(sampled(before), sampled(after))
        assert [view.up for view in engine.views()] == [True, False]
        assert "status 500" in str(engine.views()[1].reason)
        toys[1].traps = frozenset()
        await until(lambda: engine.replicas[1].up)


async def test_a_server_that_dies_with_work_in_hand_loses_none(toy_tokenizer_dir: Path) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=97, max_length=64))
    groups = [group([5, i], [[20, 3, i]]) for i in range(30)]
    async with listening(vllm_app(toy)) as staying, AsyncExitStack() as dying:
        url = await dying.enter_async_context(listening(vllm_app(toy)))
        async with over((staying, url), toy_tokenizer_dir) as engine:
            under_way = asyncio.create_task(engine.score(groups, SAMPLED, None))
            await asyncio.sleep(0.01)
            await dying.aclose()
            blocks, _ = await under_way
            blocks += (await engine.score(groups, SAMPLED, None))[0]
            assert [view.up for view in engine.views()] == [True, False]
            assert "failed again and again" in str(engine.views()[1].reason)
            staying_view, dead_view = engine.views()
            assert (staying_view.breaker, dead_view.breaker == "closed") == ("closed", False)
            assert 0 < (staying_view.p50_s or 0) <= (staying_view.p95_s or 0) <= (staying_view.p99_s or 0)
    expected, _ = await FakeEngine(FakeOptions(vocabulary_size=97), "toy").score(groups, SAMPLED, None)
    np.testing.assert_allclose(sampled(blocks), sampled([*expected, *expected]), atol=1e-6)
