"""The score cache: with it and without it a teacher says the same, and what was asked before is not asked again."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.teacher.cache import DiskStore, MemoryStore, ScoreCache
from tutelage.telemetry import TeacherMetrics
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import ScoreGroup, Signal, TokenScores, Usage

KNOWN = [-1.0, None, -2.5]
ALL = frozenset(Signal)
ROOMY = 1 << 24


def group_of(*completions: Sequence[int], prompt: Sequence[int] = (1, 2)) -> ScoreGroup:
    return ScoreGroup.model_validate(
        {
            "prompt_ids": list(prompt),
            "completions": [
                {"token_ids": ids, "candidate_ids": [[i, (i + 1) % 32] for i in ids]} for ids in completions
            ],
        }
    )


class Asked:
    """The engine behind the cache; what it is asked is written down."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.calls: list[list[list[int]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, groups: Sequence[ScoreGroup]) -> tuple[list[TokenScores], Usage]:
        ids = [c.token_ids.tolist() for g in groups for c in g.completions]
        self.calls.append(ids)
        await self.gate.wait()
        if [13] in ids:
            raise RuntimeError("that one breaks the engine")
        return await self.engine.score(groups, ALL, 3)


@asynccontextmanager
async def opened(
    path: Path | None = None,
    engine: FakeEngine | None = None,
    known: Sequence[float | None] = KNOWN,
    memory_bytes: int = ROOMY,
    file_bytes: int = ROOMY,
) -> AsyncGenerator[tuple[ScoreCache, Asked]]:
    engine = engine or FakeEngine(FakeOptions(), "toy")
    disk = None if path is None else DiskStore(path, file_bytes)
    cache = ScoreCache(engine, MemoryStore(memory_bytes), disk, TeacherMetrics.of(CollectorRegistry()))
    await cache.begin(known)
    try:
        yield cache, Asked(engine)
    finally:
        await cache.close()


def same(one: Sequence[TokenScores], other: Sequence[TokenScores]) -> None:
    assert [block.start for block in one] == [block.start for block in other]
    for a, b in zip(one, other, strict=True):
        ours, theirs = a.arrays(), b.arrays()
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            assert ours[name].tobytes() == theirs[name].tobytes()


GROUPS = st.builds(
    lambda completions, prompt: group_of(*completions, prompt=prompt),
    st.lists(st.sampled_from([[3], [4, 5], [6, 7, 8], [9] * 20, [0]]), min_size=1, max_size=3),
    st.sampled_from([(1, 2), (1, 2, 3), (3,)]),
)
REQUESTS = st.tuples(st.lists(GROUPS, min_size=1, max_size=3), st.booleans())
ROUNDS = st.lists(st.lists(REQUESTS, min_size=1, max_size=4), max_size=6)


@settings(max_examples=40, deadline=None)
@given(rounds=ROUNDS, memory_bytes=st.sampled_from([0, 2000, ROOMY]), on_disk=st.booleans())
def test_with_and_without_it_the_same_is_said(
    rounds: list[list[tuple[list[ScoreGroup], bool]]], memory_bytes: int, on_disk: bool
) -> None:
    """Requests of a round run at once, and some of them are given up; the file is too small for all."""

    async def play(path: Path | None) -> None:
        plain = FakeEngine(FakeOptions(), "toy")
        async with opened(path, memory_bytes=memory_bytes, file_bytes=80_000) as (cache, ask):
            for requests in rounds:
                tasks = [asyncio.create_task(cache.score(groups, ALL, 3, ask)) for groups, _ in requests]
                await asyncio.sleep(0)
                for task, (_, given_up) in zip(tasks, requests, strict=True):
                    if given_up:
                        task.cancel()
                results = await asyncio.gather(*tasks, return_exceptions=True)
                for result, (groups, given_up) in zip(results, requests, strict=True):
                    if isinstance(result, asyncio.CancelledError):
                        assert given_up
                        continue
                    assert not isinstance(result, BaseException)
                    blocks, usage = await plain.score(groups, ALL, 3)
                    same(result[0], blocks)
                    assert result[1].scored_tokens == usage.scored_tokens
                    through = usage.forward_tokens + usage.cached_tokens
                    assert result[1].forward_tokens + result[1].cached_tokens == through
            assert cache.view().memory_bytes <= memory_bytes

    with TemporaryDirectory() as folder:
        asyncio.run(play(Path(folder) / "scores.db" if on_disk else None))


async def test_only_what_is_new_is_asked_and_a_hit_costs_no_token() -> None:
    async with opened() as (cache, ask):
        await cache.score([group_of([3, 4], [5])], ALL, 3, ask)
        _, usage = await cache.score([group_of([5], [6], [3, 4])], ALL, 3, ask)
        assert ask.calls == [[[3, 4], [5]], [[6]]]
        assert usage == Usage(scored_tokens=4, forward_tokens=2, cached_tokens=5)
        assert (cache.view().hits, cache.view().misses) == (2, 3)


async def test_anything_that_an_answer_depends_on_is_another_question() -> None:
    async with opened() as (cache, ask):
        plain = group_of([3, 4])
        others = [
            ([group_of([3, 4], prompt=(1, 2, 3))], ALL, 3),
            ([group_of([4], prompt=(1, 2, 3))], ALL, 3),
            ([group_of([3, 4])], ALL, 4),
            ([group_of([3, 4])], ALL - {Signal.HIDDEN}, 3),
            ([ScoreGroup.model_validate({"prompt_ids": [1, 2], "completions": [{"token_ids": [3, 4]}]})], ALL, 3),
        ]
        await cache.score([plain], ALL, 3, ask)

        async def as_asked(groups: Sequence[ScoreGroup]) -> tuple[list[TokenScores], Usage]:
            ask.calls.append([])
            return await ask.engine.score(groups, frozenset({Signal.SAMPLED}), None)

        for groups, signals, top_k in others:
            await cache.score(groups, signals, top_k, as_asked)
        assert len(ask.calls) == 1 + len(others)


async def test_equal_questions_at_the_same_time_are_asked_once() -> None:
    async with opened() as (cache, ask):
        ask.gate.clear()
        tasks = [asyncio.create_task(cache.score([group_of([3, 4])], ALL, 3, ask)) for _ in range(5)]
        while not ask.calls:
            await asyncio.sleep(0)
        tasks[0].cancel()  # the one that asked
        await asyncio.wait([tasks[0]])
        ask.gate.set()
        results = await asyncio.gather(*tasks[1:])
        assert len(ask.calls) == 1
        for blocks, usage in results:
            same(blocks, results[0][0])
            assert usage.forward_tokens == 0
        assert cache.view().joined == 4


async def test_a_question_that_nobody_waits_for_any_more_is_given_up() -> None:
    async with opened() as (cache, ask):
        ask.gate.clear()
        tasks = [asyncio.create_task(cache.score([group_of([3, 4])], ALL, 3, ask)) for _ in range(2)]
        while not ask.calls:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        ask.gate.set()
        await cache.score([group_of([3, 4])], ALL, 3, ask)
        assert len(ask.calls) == 2


async def test_who_waits_for_a_question_that_fails_asks_for_itself() -> None:
    async with opened() as (cache, ask):
        ask.gate.clear()
        poisoned = asyncio.create_task(cache.score([group_of([3, 4], [13])], ALL, 3, ask))
        sound = asyncio.create_task(cache.score([group_of([3, 4])], ALL, 3, ask))
        while not ask.calls:
            await asyncio.sleep(0)
        ask.gate.set()
        with pytest.raises(RuntimeError):
            await poisoned
        blocks, _ = await sound
        same(blocks, (await ask.engine.score([group_of([3, 4])], ALL, 3))[0])


async def test_a_restart_remembers(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    async with opened(path) as (cache, ask):
        before, _ = await cache.score([group_of([3, 4], [5])], ALL, 3, ask)
    async with opened(path) as (cache, ask):
        after, usage = await cache.score([group_of([3, 4], [5])], ALL, 3, ask)
        same(before, after)
        assert (ask.calls, usage.forward_tokens) == ([], 0)


async def test_a_changed_teacher_never_hits(tmp_path: Path) -> None:
    """Another name of the weights, another engine version, and other weights under the same name."""
    path = tmp_path / "scores.db"
    async with opened(path) as (cache, ask):
        await cache.score([group_of([3, 4])], ALL, 3, ask)
    other, newer, unnamed = (FakeEngine(FakeOptions(seed=seed), "toy") for seed in (1, 0, 2))
    newer.provenance = newer.provenance.model_copy(update={"engine_version": "2"})
    unnamed.provenance = FakeEngine(FakeOptions(), "toy").provenance
    for engine, known in ((other, KNOWN), (newer, KNOWN), (unnamed, [-1.0, None, -2.6])):
        async with opened(path, engine, known) as (cache, ask):
            blocks, _ = await cache.score([group_of([3, 4])], ALL, 3, ask)
            assert len(ask.calls) == 1
            same(blocks, (await engine.score([group_of([3, 4])], ALL, 3))[0])


async def test_a_damaged_entry_is_dropped_and_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    async with opened(path) as (cache, ask):
        before, _ = await cache.score([group_of([3, 4])], ALL, 3, ask)
    with sqlite3.connect(path) as db:
        ((key, body),) = db.execute("SELECT key, body FROM entry").fetchall()
        flipped = body[:-1] + bytes([body[-1] ^ 1])
        db.execute("UPDATE entry SET body = ? WHERE key = ?", (flipped, key))
    async with opened(path) as (cache, ask):
        after, _ = await cache.score([group_of([3, 4])], ALL, 3, ask)
        same(before, after)
        assert (len(ask.calls), cache.view().corrupt) == (1, 1)


@pytest.mark.parametrize("first_byte", [100, 4096])
async def test_a_damaged_file_is_begun_anew(tmp_path: Path, first_byte: int) -> None:
    path = tmp_path / "scores.db"
    async with opened(path) as (cache, ask):
        before, _ = await cache.score([group_of([3, 4])], ALL, 3, ask)
    content = path.read_bytes()
    path.write_bytes(content[:first_byte] + b"\xff" * (len(content) - first_byte))
    async with opened(path) as (cache, ask):
        for _ in range(2):
            after, _ = await cache.score([group_of([3, 4])], ALL, 3, ask)
            same(before, after)
        assert (len(ask.calls), cache.view().corrupt) == (1, 1)
    async with opened(path) as (cache, ask):
        await cache.score([group_of([3, 4])], ALL, 3, ask)
        assert ask.calls == []


async def test_the_file_stays_within_its_limit_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    path = tmp_path / "scores.db"
    async with opened(path, file_bytes=200_000, memory_bytes=0) as (cache, ask):
        for i in range(200):
            await cache.score([group_of([i % 30] * 20, [i // 30] * 7)], ALL, 3, ask)
            await cache.score([group_of([31] * 20)], ALL, 3, ask)
        assert cache.view().file_bytes <= 200_000
        assert [[31] * 20] in ask.calls
        assert ask.calls.count([[31] * 20]) == 1
    assert path.stat().st_size <= 200_000


def test_a_file_that_is_no_score_cache_is_left_alone(tmp_path: Path) -> None:
    text, other = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("not a database at all, but notes of some length\n" * 10)
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE precious (x)")
    for path in (text, other, tmp_path / "no" / "folder.db"):
        before = path.read_bytes() if path.exists() else None
        with pytest.raises(InvalidInput, match="cannot be used"):
            DiskStore(path, ROOMY)
        assert (path.read_bytes() if path.exists() else None) == before


async def test_a_teacher_shows_its_cache_and_charges_nothing_for_a_hit(
    start_teacher: Any, request_for: Any, tmp_path: Path
) -> None:
    kept = {"score_cache_bytes": ROOMY, "score_cache_file": tmp_path / "scores.db"}
    async with start_teacher(**kept) as teacher:
        first = await teacher.client.score(request_for())
        spent = await teacher.client.usage()
        again = await teacher.client.score(request_for())
        narrow = await teacher.client.score(request_for(entry_dtype="float16"))
        assert teacher.engine.calls == [1]
        assert (again.usage.forward_tokens, again.usage.cached_tokens) == (0, first.usage.forward_tokens)
        np.testing.assert_array_equal(again.scores[0].sampled_logprob, narrow.scores[0].sampled_logprob)
        same(first.scores, again.scores)
        assert await teacher.client.usage() == spent
        view = (await teacher.client.info()).score_cache
        assert (view.hits, view.misses) == (2, 1)
        shown = (await teacher.http.get("/metrics")).text
        assert 'tutelage_teacher_score_cache_completions_total{outcome="hit"} 2.0' in shown
        assert f'tutelage_teacher_score_cache_bytes{{place="memory"}} {float(view.memory_bytes)}' in shown
    async with start_teacher(**kept) as teacher:
        same((await teacher.client.score(request_for())).scores, first.scores)
        assert teacher.engine.calls == []
