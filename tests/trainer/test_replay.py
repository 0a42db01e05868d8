"""DistiLLM's schedule: whose text a step learns from, how the share rises, and what the buffer keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.trainer.data import Example
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.replay import Replay, Share
from tutelage.trainer.rollouts import SOURCES
from tutelage.trainer.sourcing import Sources
from tutelage.trainer.teachers import Teachers
from tutelage_client.spec import Adaptive
from tutelage_client.wire import Rollout

UNIT = st.floats(0, 1, exclude_max=True)


def filled(schedule: Adaptive, steps: int, count: int) -> Replay:
    replay = Replay(schedule, steps)
    replay.rollouts = [written(i) for i in range(count)]
    return replay


def written(index: int, version: int = 0) -> Rollout:
    return Rollout(
        id=f"r{index}",
        source="student",
        policy_version=version,
        prompt_ids=np.array([2 + index % 20, 3], dtype=np.int32),
        completion_ids=np.array([4, 1], dtype=np.int32),
        mask=np.ones(2, dtype=np.bool_),
        behaviour_logprob=np.array([-0.1 * (index + 1), -1 / 3], dtype=np.float32),
    )


@settings(deadline=None)
@given(draw=UNIT, share=UNIT, step=st.integers(0, 9), full=st.booleans())
def test_a_draw_decides_as_the_released_code_does(draw: float, share: float, step: int, full: bool) -> None:
    replay = filled(Adaptive(initial_share=share, capacity=3), 10, 3 if full else 2)
    if draw < share * (1 - step / 10) or (draw < share and not full):
        expected = "fresh"
    elif draw < share:
        expected = "replayed"
    else:
        expected = "data"
    assert replay.text_of(step, draw, Share()) == expected


def test_the_share_rises_where_the_loss_worsens_against_that_of_the_last_rise() -> None:
    schedule = Adaptive(initial_share=0.7, rise=0.2, tolerance=0.1)
    share, shares = Share(), []
    for loss in (2.0, 2.05, 1.0, 2.1, 2.15, 2.3, 9.0):
        share = share.after(loss, schedule)
        shares.append(share.of(schedule))
    assert shares == pytest.approx([0.7, 0.7, 0.7, 0.9, 0.9, 1.0, 1.0])


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 4), max_size=6))
def test_the_buffer_keeps_the_newest(counts: list[int]) -> None:
    replay, all_written = Replay(Adaptive(capacity=5), 10), [written(i) for i in range(sum(counts))]
    for end, count in zip(np.cumsum(counts), counts, strict=True):
        replay.keep(all_written[end - count : end])
    assert [r.id for r in replay.rollouts] == [r.id for r in all_written[-5:]]


def test_what_is_drawn_is_different_rollouts_and_the_same_again() -> None:
    replay = filled(Adaptive(capacity=8), 10, 8)
    drawn = [[r.id for r in replay.drawn(5, seed)] for seed in (1, 1, 2)]
    assert len(set(drawn[0])) == 5
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_buffer_that_was_saved_is_the_same(tmp_path: Path) -> None:
    one, other = filled(Adaptive(capacity=4), 10, 3), Replay(Adaptive(capacity=4), 10)
    one.write(tmp_path)
    other.read(tmp_path)
    assert [r.model_dump_json() for r in one.rollouts] == [r.model_dump_json() for r in other.rollouts]
    for mine, theirs in zip(one.rollouts, other.rollouts, strict=True):
        assert mine.behaviour_logprob is not None
        assert theirs.behaviour_logprob is not None
        assert np.array_equal(mine.behaviour_logprob, theirs.behaviour_logprob)


@pytest.fixture
def sources(make_spec: Any, make_student: Any) -> Sources:
    """A step of 4 x 2 rollouts that learns from the student whatever is drawn, and replays at the last step."""
    rollout = {"prompts_per_step": 4, "samples_per_prompt": 2, "max_new_tokens": 6}
    spec = make_spec({"kind": "constant_penalty"}, rollout=rollout)
    examples = [Example(f"p{i}", [2 + i, 10], [3 + i, 1], f"a{i}", None, i + 1) for i in range(8)]
    replay = Replay(Adaptive(initial_share=1.0, capacity=8), 10)
    return Sources(5, spec.rollout, examples, make_student(spec), Teachers(), Ledger(), replay)


async def collected(sources: Sources, step: int) -> list[Rollout]:
    return [rollout async for ended in SOURCES["adaptive"](sources, step) for rollout in ended]


async def test_replayed_text_has_the_version_and_the_log_probabilities_of_its_writing(sources: Sources) -> None:
    assert sources.replay is not None
    fresh = await collected(sources, 0)
    assert {(r.source, r.policy_version) for r in fresh} == {("student", 0)}
    assert sources.replay.rollouts == []
    sources.replay.keep(fresh)
    again = await collected(sources, 10)
    assert len({r.id for r in again} | {r.id for r in fresh}) == 16
    assert {r.policy_version for r in again} == {0}
    by_text = {(r.prompt_ids.tobytes(), r.completion_ids.tobytes()): r.behaviour_logprob for r in fresh}
    for rollout in again:
        kept = by_text[rollout.prompt_ids.tobytes(), rollout.completion_ids.tobytes()]
        assert kept is not None
        assert rollout.behaviour_logprob is not None
        np.testing.assert_array_equal(rollout.behaviour_logprob, kept)


async def test_without_a_share_a_step_is_data(sources: Sources) -> None:
    without = replace(sources, replay=Replay(Adaptive(capacity=8), 10))
    assert {r.source for r in await collected(without, 3)} == {"data"}
