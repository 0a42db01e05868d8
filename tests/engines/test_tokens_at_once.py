"""Tokens that are scored at one upstream at a time: bounded, in order, and given back whatever becomes of a call."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.engines import FakeOptions, UpstreamOptions, open_engine
from tutelage.engines.fakes import APPS, ToyServer, listening
from tutelage.engines.upstream.calls import Calls, all_of
from tutelage.engines.upstream.engine import UpstreamEngine
from tutelage.engines.upstream.failures import UpstreamAway, UpstreamFailed
from tutelage.engines.upstream.room import TokenRoom
from tutelage.engines.vllm_scores import tokens_at_once
from tutelage_client.wire import GenerateRequest, ScoreGroup, Signal

LONGEST = 64
GROUPS = [
    ScoreGroup.model_validate({"prompt_ids": [1, 2], "completions": [{"token_ids": [3 + i] * (1 + 7 * i % 60)}]})
    for i in range(24)
]


class Visits:
    """Calls that take room, stay as long as they are told, and are written down."""

    def __init__(self, most: int | None) -> None:
        self.room = TokenRoom(most)
        self.inside: list[int] = []
        self.entered: list[int] = []

    async def make(self, name: int, tokens: int, turns: int) -> None:
        async with self.room.taken(tokens):
            self.entered.append(name)
            self.inside.append(tokens)
            most = self.room.most
            assert most is None or sum(self.inside) <= most or self.inside == [tokens]
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                self.inside.remove(tokens)

    async def fills(self, tokens: int) -> bool:
        """Whether so many find room at once."""
        call = asyncio.create_task(self.make(-1, tokens, 0))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        done = call.done()
        call.cancel()
        return done


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 4)), min_size=1, max_size=12),
    st.sets(st.integers(0, 11), max_size=4),
    st.integers(0, 8),
)
def test_never_more_than_the_bound_and_each_in_its_turn_whoever_gives_up(
    calls: list[tuple[int, int]], given_up: set[int], after: int
) -> None:
    async def run() -> None:
        visits = Visits(most=8)
        tasks = [asyncio.create_task(visits.make(i, *call)) for i, call in enumerate(calls)]
        for _ in range(after):
            await asyncio.sleep(0)
        for i in given_up & set(range(len(tasks))):
            tasks[i].cancel()
        ends = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ends)
        assert visits.entered == sorted(visits.entered), "nobody overtakes"
        assert set(visits.entered) >= set(range(len(tasks))) - given_up
        assert await visits.fills(8), "all of it was given back"

    asyncio.run(run())


async def test_a_sequence_over_the_bound_goes_alone_and_is_not_starved_by_short_ones() -> None:
    visits = Visits(most=8)
    await all_of([visits.make(i, 20 if i == 3 else 2, turns=3) for i in range(9)])
    assert visits.entered == list(range(9))


async def test_what_scores_nothing_waits_for_nobody() -> None:
    visits, held = Visits(most=8), asyncio.Event()

    async def hold() -> None:
        async with visits.room.taken(8):
            await held.wait()

    tasks = [asyncio.create_task(hold()), asyncio.create_task(visits.make(1, 5, 0))]
    await asyncio.wait_for(visits.make(2, 0, 0), 10)
    held.set()
    await asyncio.gather(*tasks)
    assert visits.entered == [2, 1]


async def test_who_finds_no_room_before_the_deadline_is_told_so_and_leaves_the_line() -> None:
    calls, hanging = Calls("http://x", 0.2, 8, tokens_at_once=10), asyncio.Event()

    async def hang() -> None:
        hanging.set()
        await asyncio.Event().wait()

    async def answer() -> str:
        return "text"

    running = asyncio.create_task(calls.make(hang, tokens=8))
    await hanging.wait()
    with pytest.raises(UpstreamAway, match=r"http://x did not answer within 0\.2 s"):
        await calls.make(answer, tokens=8)
    with pytest.raises(UpstreamAway):
        await running
    assert await calls.make(answer, tokens=8) == "text"


async def score_all(bound: int | None, directory: Path, traps: Any) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=97, max_length=LONGEST), traps)
    async with listening(APPS["vllm"](toy)) as url:
        options = {"kind": "vllm", "upstream": url, "fail_fast": True, "model": str(directory), "tokens_at_once": bound}
        engine = await open_engine(UpstreamOptions.model_validate(options), "toy")
        try:
            await engine.connect()
            blocks, _ = await engine.score(GROUPS, frozenset({Signal.SAMPLED, Signal.TOP_K}), 3)
            assert [block.rows for block in blocks] == [group.scored_tokens for group in GROUPS]
            await engine.generate(GenerateRequest(prompts=[[1, 2]], max_tokens=2))
        finally:
            await engine.close()


@pytest.mark.parametrize("older", [(), ("scale_out_off",)], ids=["by ids", "by top k"])
async def test_a_server_that_runs_out_of_memory_does_not_with_the_bound(older: Any, toy_tokenizer_dir: Path) -> None:
    traps = ("out_of_memory", *older)
    await score_all(LONGEST, toy_tokenizer_dir, traps)
    with pytest.raises(UpstreamFailed, match="EngineCore encountered an issue"):
        await score_all(None, toy_tokenizer_dir, traps)


@pytest.mark.parametrize(("kind", "most"), [("vllm", 2**30 // 97), ("sglang", None), ("openai", None)])
async def test_a_bound_where_none_is_given(
    kind: Literal["vllm", "sglang", "openai"], most: int | None, toy_tokenizer_dir: Path
) -> None:
    for given_tokens, bound in ((None, most), (500, 500)):
        options = UpstreamOptions(
            kind=kind, upstream="http://x", model=str(toy_tokenizer_dir), tokens_at_once=given_tokens
        )
        engine = await open_engine(options, "toy")
        assert isinstance(engine, UpstreamEngine) and engine.calls is not None
        assert engine.calls.room.most == bound
        await engine.close()


def test_the_bound_of_vllm_is_so_many_bytes_of_logits() -> None:
    assert tokens_at_once(151_936) * 151_936 * 4 <= 4 << 30 < (tokens_at_once(151_936) + 1) * 151_936 * 4
