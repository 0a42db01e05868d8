"""What a run recorded of itself, and what must hold of that record whatever failed on the way.

The coordinator's events, metrics and checkpoints say what counted; beside them the trainer notes, for every optimizer
step, what it learned from (`note`). `broken` compares the two. PROMISES has the invariants by their names.
"""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tutelage_client.wire import CheckpointView, EventView, RunStatus, RunView

PROMISES = {
    "I1": "the steps that count are consecutive, each once, epochs never fall, and nobody wrote with an old one",
    "I2": "no score is learned from twice in them",
    "I3": "everything submitted was trained, left out and counted, or is still queued",
    "I4": "a deterministic run ends with the weights of the undisturbed one",
    "I5": "queue and memory stay below their bounds",
    "I6": "after the fault the run goes on within its limit",
    "I7": "no secret and no prompt is in a log",
}
FATES = ("trained", "stale", "dead_lettered", "skipped", "dropped")
_UNOWNED = frozenset(status for status in RunStatus if status.final) | {
    RunStatus.QUEUED,
    RunStatus.RECOVERING,
    RunStatus.PAUSED,
}


@dataclass(frozen=True, slots=True)
class LearnedStep:
    """One optimizer step of one attempt. trained, left_out: the rollouts of the step, as ROLLOUT@TEACHER."""

    epoch: int
    step: int
    trained: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class History:
    """The record of one run.

    metrics: the rows of the steps that count; learned: what every attempt noted, the ones that died included
    submitted_per_step: rollouts, where the spec fixes their number; queued: jobs of the run still waiting or leased
    """

    run: RunView
    events: Sequence[EventView]
    metrics: Sequence[Mapping[str, Any]]
    checkpoints: Sequence[CheckpointView]
    learned: Sequence[LearnedStep]
    submitted_per_step: int | None = None
    queued: int = 0


def note(folder: Path, *learned: LearnedStep) -> None:
    """Append steps to the record of their attempt: all of them in one write, or none.

    Raises:
        OSError: the disk refuses, or is full.
    """
    if not learned:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in learned)
    with (folder / f"epoch-{learned[0].epoch:05d}.jsonl").open("ab", buffering=0) as file:
        before = file.tell()
        if file.write(lines) < len(lines):
            file.truncate(before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def noted(folder: Path) -> Iterator[bytes]:
    """The notes of each attempt; a last line that a killed process left half written never counted."""
    for path in sorted(folder.glob("epoch-*.jsonl")):
        lines = path.read_bytes()
        yield lines[: lines.rfind(b"\n") + 1]


def read_notes(lines: bytes) -> list[LearnedStep]:
    """The steps that `note` wrote, in order."""
    rows = map(json.loads, lines.splitlines())
    return [LearnedStep(r["epoch"], r["step"], tuple(r["trained"]), tuple(r["left_out"])) for r in rows]


def submitted_per_step(spec: Mapping[str, Any]) -> int | None:
    """How many rollouts every step has, where the spec alone says so."""
    rollout = spec["rollout"]
    is_fixed = rollout["source"] in ("student", "pushed")
    return rollout["prompts_per_step"] * rollout["samples_per_prompt"] if is_fixed else None


def broken(history: History) -> list[str]:
    """Every violation of I1 to I3 as a sentence that starts with the invariant's name; none: they hold."""
    return [sentence for name in INVARIANTS for sentence in found(name, history)]


def found(name: str, history: History) -> list[str]:
    """Every violation of one of I1 to I3, as such a sentence."""
    return [f"{name}: {violation}" for violation in INVARIANTS[name](history)]


def one_lineage(history: History) -> Iterator[str]:
    steps, first = [row["step"] for row in history.metrics], _first_step(history.run)
    if steps != list(range(first, first + len(steps))):
        yield f"the steps that count are {steps[:50]}, expected {first}, {first + 1}, {first + 2}, ..."
    if history.run.status is RunStatus.SUCCEEDED and steps and steps[-1] != history.run.step:
        yield f"the run ended at step {history.run.step}, its last counted step is {steps[-1]}"
    for what, epochs in (
        ("step", [row["epoch"] for row in history.metrics]),
        ("checkpoint", [checkpoint.epoch for checkpoint in history.checkpoints]),
    ):
        for index, (before, after) in enumerate(pairwise(epochs)):
            if after < before:
                yield f"{what} number {index + 1} is of epoch {after}, the one before it of epoch {before}"
    yield from _old_writes(history.events)


def _first_step(run: RunView) -> int:
    """A fork goes on behind the step that it begins at, whose row the other run has."""
    return run.forked_from.step + 1 if run.forked_from is not None and run.forked_from.step else 0


def _old_writes(events: Sequence[EventView]) -> Iterator[str]:
    """Reports that were taken from an attempt that no longer owned the run."""
    newest, owner = 0, None
    for event in events:
        epoch: Any = event.data.get("epoch")
        if event.type == "state":
            if epoch < newest:
                yield f"event {event.id}: the epoch fell from {newest} to {epoch}"
            newest, owner = epoch, None if event.data["to"] in _UNOWNED else epoch
        elif event.type in ("metrics", "checkpoint") and epoch is not None and epoch != owner:
            whose = "nobody" if owner is None else f"epoch {owner}"
            yield f"event {event.id}: epoch {epoch} wrote {event.message!r} while {whose} owned the run"


def trained_once(history: History) -> Iterator[str]:
    noted = Counter((learned.epoch, learned.step) for learned in history.learned)
    for (epoch, step), times in noted.items():
        if times > 1:
            yield f"epoch {epoch} learned step {step} {times} times"
    first: dict[str, int] = {}
    for learned in _counted(history):
        for key in learned.trained:
            rollout = key.partition("@")[0]  # also where a second teacher marked it in place of the first
            if rollout in first:
                yield f"{key} was learned from in step {first[rollout]} and in step {learned.step}"
            first.setdefault(rollout, learned.step)


def nothing_lost(history: History) -> Iterator[str]:
    counted = {(learned.epoch, learned.step): learned for learned in _counted(history)}
    for row in history.metrics:
        if row["step"] == 0:
            continue
        learned = counted.get((row["epoch"], row["step"]))
        if learned is None:
            yield f"step {row['step']} of epoch {row['epoch']} counts, but its attempt never learned it"
            continue
        ended, submitted = len(learned.trained) + len(learned.left_out), history.submitted_per_step
        if submitted is not None and ended != submitted:
            yield f"step {row['step']}: {submitted} were submitted, {ended} were trained or left out"
    yield from _accounts(history)
    if history.run.status is RunStatus.SUCCEEDED and history.queued:
        yield f"the run succeeded, and {history.queued} of its jobs are still queued"


def _accounts(history: History) -> Iterator[str]:
    """What the run says of its rollouts: each has one fate or is under way, as the notes of its attempts say, too."""
    noted = {(learned.epoch, learned.step): learned for learned in _counted(history)}
    trained = left_out = 0
    for row in history.metrics:
        if (learned := noted.get((row["epoch"], row["step"]))) is not None:
            trained, left_out = trained + len(learned.trained), left_out + len(learned.left_out)
        if "rollouts/submitted" not in row:
            continue
        submitted, *fates, queued = (row.get(f"rollouts/{name}", 0) for name in ("submitted", *FATES, "queued"))
        if submitted != sum(fates) + queued:
            yield f"step {row['step']}: {submitted} rollouts were submitted, {sum(fates) + queued} are accounted for"
        if (fates[0], True) != (trained, sum(fates[1:]) >= left_out):
            told = f"{fates[0]} rollouts trained and {sum(fates[1:])} left out"
            yield f"step {row['step']} says {told}, its attempts noted {trained} and {left_out}"
        if queued and history.run.status is RunStatus.SUCCEEDED and row is history.metrics[-1]:
            yield f"the run succeeded with {queued} rollouts under way"


def _counted(history: History) -> list[LearnedStep]:
    """The notes behind the steps that count."""
    lineage = {(row["epoch"], row["step"]) for row in history.metrics}
    return [learned for learned in history.learned if (learned.epoch, learned.step) in lineage]


INVARIANTS: dict[str, Callable[[History], Iterator[str]]] = {
    "I1": one_lineage,
    "I2": trained_once,
    "I3": nothing_lost,
}


def other_weights(found: Sequence[CheckpointView], undisturbed: Sequence[CheckpointView]) -> list[str]:
    """I4: the steps at which a deterministic run's weights differ from those of the run that nothing happened to."""
    wanted = {checkpoint.step: checkpoint.weights_sha256 for checkpoint in undisturbed}
    differ = [c.step for c in found if c.step in wanted and c.weights_sha256 != wanted[c.step]]
    sentences = [f"I4: the weights at step {step} are not those of the undisturbed run" for step in differ]
    if not {checkpoint.step for checkpoint in found} & wanted.keys():
        sentences.append("I4: the two runs have no checkpoint at the same step")
    return sentences


def out_of_bounds(name: str, samples: Sequence[float], most: float) -> list[str]:
    """I5: a quantity that was sampled over the run and must never be above `most`."""
    return [f"I5: {name} reached {max(samples):.6g}, at most {most:.6g} is allowed"] if max(samples) > most else []


def no_progress(events: Sequence[EventView], fault_at_s: float, within_s: float) -> list[str]:
    """I6: a step was counted, or the run ended, in the `within_s` seconds after the fault (seconds since 1970)."""
    times = [e.created_at.timestamp() for e in events if e.type == "metrics" or e.data.get("to") == "succeeded"]
    next_s = min((at_s - fault_at_s for at_s in times if at_s > fault_at_s), default=None)
    if next_s is not None and next_s <= within_s:
        return []
    took = "never" if next_s is None else f"after {next_s:.1f} s"
    return [f"I6: after the fault the run went on {took}, expected within {within_s:.1f} s"]


def leaks(logs: Mapping[str, str], secrets: Sequence[str]) -> list[str]:
    """I7: log files, by name, that hold one of these texts. What leaked is not repeated here."""
    return [
        f"I7: {name} holds secret number {index}"
        for name, text in logs.items()
        for index, secret in enumerate(secrets)
        if secret in text
    ]
