"""The record of a run: how it is kept, and that each way of breaking a promise is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tutelage_client import history
from tutelage_client.history import History, LearnedStep
from tutelage_client.wire import CheckpointView, EventView, RunStatus, RunView

AT = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int, kind: Any, **data: Any) -> EventView:
    return EventView(id=number, type=kind, message=kind, data=data, created_at=AT + timedelta(seconds=number))


def checkpoint(step: int, epoch: int, sha256: str = "w") -> CheckpointView:
    return CheckpointView(step=step, epoch=epoch, path="p", weights_sha256=sha256)


def learned(epoch: int, step: int) -> LearnedStep:
    return LearnedStep(epoch, step, (f"{step}a@toy",), (f"{step}b@toy",))


@pytest.fixture
def sound() -> History:
    """Epoch 1 dies after step 2, of which nothing counts; epoch 2 goes on behind the checkpoint of step 1."""
    run = RunView(
        id="r", name="r", status=RunStatus.SUCCEEDED, step=3, steps=3, epoch=2, created_at=AT, updated_at=AT, spec={}
    )
    told = [
        event(1, "state", to="queued", epoch=0),
        event(2, "state", to="starting", epoch=1),
        event(3, "metrics", step=1, epoch=1),
        event(4, "checkpoint", step=1, epoch=1),
        event(5, "metrics", step=2, epoch=1),
        event(6, "state", to="recovering", epoch=1),
        event(7, "state", to="starting", epoch=2),
        event(8, "metrics", step=2, epoch=2),
        event(9, "metrics", step=3, epoch=2),
    ]
    rows = [{"step": 0, "epoch": 1}, *({"step": step, "epoch": min(step, 2)} for step in (1, 2, 3))]
    notes = [learned(1, 1), learned(1, 2), learned(2, 2), learned(2, 3)]
    return History(run, told, rows, [checkpoint(1, 1), checkpoint(3, 2)], notes, submitted_per_step=2)


def test_work_that_is_done_again_after_a_crash_breaks_nothing(sound: History) -> None:
    assert history.broken(sound) == []


def told(row: dict[str, Any], **changes: float) -> dict[str, Any]:
    """The row with the fates of the rollouts that the notes have up to its step."""
    fates = {"submitted": 2 * row["step"] + 1, "trained": row["step"], "stale": 0, "dead_lettered": row["step"]}
    fates |= {"dropped": 0, "queued": 1} | changes
    return row | {f"rollouts/{name}": count for name, count in fates.items()}


def test_the_accounts_of_a_run_agree_with_its_notes(sound: History) -> None:
    first, *rows = sound.metrics
    running = replace(sound, run=sound.run.model_copy(update={"status": RunStatus.RUNNING}))
    whole = [first, *(told(dict(row)) for row in rows)]
    assert history.broken(replace(running, metrics=whole)) == []
    assert history.broken(replace(sound, metrics=whole)) == ["I3: the run succeeded with 1 rollouts under way"]
    lost = [*whole[:-1], told(dict(rows[-1]), submitted=8)]
    assert history.broken(replace(running, metrics=lost)) == [
        "I3: step 3: 8 rollouts were submitted, 7 are accounted for"
    ]
    twice = [*whole[:-1], told(dict(rows[-1]), trained=4, queued=0)]
    assert history.broken(replace(running, metrics=twice)) == [
        "I3: step 3 says 4 rollouts trained and 3 left out, its attempts noted 3 and 3"
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: {"metrics": [h.metrics[0], *h.metrics[2:]]}, "I1: the steps that count are [0, 2, 3]"),
        (lambda h: {"metrics": [*h.metrics[:3], {"step": 3, "epoch": 1}]}, "I1: step number 3 is of epoch 1"),
        (lambda h: {"metrics": h.metrics[:3]}, "I1: the run ended at step 3, its last counted step is 2"),
        (lambda h: {"checkpoints": h.checkpoints[::-1]}, "I1: checkpoint number 1 is of epoch 1"),
        (lambda h: {"events": [*h.events, event(10, "metrics", epoch=1)]}, "I1: event 10: epoch 1 wrote"),
        (lambda h: {"events": [*h.events, event(10, "checkpoint", epoch=1)]}, "I1: event 10: epoch 1 wrote"),
        (lambda h: {"events": [*h.events[:6], event(10, "metrics", epoch=1)]}, "while nobody owned the run"),
        (lambda h: {"events": [*h.events, event(10, "state", to="starting", epoch=1)]}, "I1: event 10: the epoch fell"),
        (lambda h: {"learned": [*h.learned, learned(2, 3)]}, "I2: epoch 2 learned step 3 2 times"),
        (
            lambda h: {"learned": [*h.learned[:-1], LearnedStep(2, 3, ("2a@toy", "x@toy"), ())]},
            "I2: 2a@toy was learned from in step 2 and in step 3",
        ),
        (
            lambda h: {"learned": [*h.learned[:-1], LearnedStep(2, 3, ("c@toy", "c@toy"), ())]},
            "I2: c@toy was learned from in step 3 and in step 3",
        ),
        (
            lambda h: {"learned": [*h.learned[:-1], LearnedStep(2, 3, ("2a@stand-in", "x@toy"), ())]},
            "I2: 2a@stand-in was learned from in step 2 and in step 3",
        ),
        (lambda h: {"learned": h.learned[:-1]}, "I3: step 3 of epoch 2 counts, but its attempt never learned it"),
        (lambda h: {"learned": [*h.learned[:-1], LearnedStep(2, 3, ("c@toy",), ())]}, "I3: step 3: 2 were submitted"),
        (lambda h: {"queued": 1}, "I3: the run succeeded, and 1 of its jobs are still queued"),
    ],
)
def test_each_broken_promise_is_told(sound: History, change: Any, says: str) -> None:
    assert any(says in sentence for sentence in history.broken(replace(sound, **change(sound))))


def test_notes_come_back_and_a_line_that_was_cut_by_a_kill_is_left_out(tmp_path: Path) -> None:
    for each in (learned(1, 1), learned(1, 2), learned(12, 2)):
        history.note(tmp_path / "learned", each)
    with (tmp_path / "learned" / "epoch-00001.jsonl").open("a") as file:
        file.write('{"epoch": 1, "st')
    lines = b"".join(history.noted(tmp_path / "learned"))
    assert history.read_notes(lines) == [learned(1, 1), learned(1, 2), learned(12, 2)]
    assert history.read_notes(b"".join(history.noted(tmp_path / "nowhere"))) == []


def test_weights_are_compared_step_by_step() -> None:
    undisturbed = [checkpoint(2, 1, "a"), checkpoint(4, 1, "b")]
    assert history.other_weights([checkpoint(2, 1, "a"), checkpoint(4, 2, "b")], undisturbed) == []
    (said,) = history.other_weights([checkpoint(2, 1, "a"), checkpoint(4, 2, "c")], undisturbed)
    assert "step 4" in said
    assert "no checkpoint at the same step" in history.other_weights([checkpoint(3, 1)], undisturbed)[0]


def test_bounds_progress_and_leaks(sound: History) -> None:
    assert history.out_of_bounds("the queue", [1, 5, 2], 5) == []
    assert "reached 6, at most 5" in history.out_of_bounds("the queue", [1, 6, 2], 5)[0]
    began_s = AT.timestamp()
    assert history.no_progress(sound.events, began_s + 5, within_s=3) == []
    assert "went on after 3.0 s" in history.no_progress(sound.events, began_s + 5, within_s=2)[0]
    assert "went on never" in history.no_progress(sound.events, began_s + 9, within_s=2)[0]
    assert history.leaks({"a.log": "well"}, ["secret"]) == []
    assert history.leaks({"a.log": "the secret"}, ["other", "secret"]) == ["I7: a.log holds secret number 1"]
