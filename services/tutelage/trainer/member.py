"""What one rank holds of a student, and what it does when rank 0 says so."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from tutelage.core.batch import OutputHead
from tutelage.core.objective import Objective
from tutelage.engines.sampling import Sampled
from tutelage.trainer import checkpoint, determinism, saving, shards
from tutelage.trainer.collate import Unit, by_length, cut
from tutelage.trainer.crashes import Passing, pass_by
from tutelage.trainer.follower import Follower
from tutelage.trainer.learning import Metrics
from tutelage.trainer.loading import load_student
from tutelage.trainer.marking import Scored, silenced
from tutelage.trainer.ranks import Ranks
from tutelage.trainer.sharded import Sharded
from tutelage.trainer.student import Before, Student, unwatched
from tutelage.trainer.writer import Writer
from tutelage_client.errors import TutelageError
from tutelage_client.spec import RolloutSpec, RunSpec

log = logging.getLogger(__name__)
T = TypeVar("T")
END = "end"
# What a rank lives on after, for rank 0 to tell; of anything else it dies, and the others with it.
FORESEEN = (TutelageError, ArithmeticError, OSError)


class Model(NamedTuple):
    """What is loaded, with the arguments of `load_student`."""

    folder: Path | str
    spec: RunSpec
    reference: Path | str | None


class Writing(NamedTuple):
    """Prompts of which each rank continues its stretch. beside: with the copy that may be of older weights
    draw: the state of the generator"""

    beside: bool
    prompts: Sequence[Sequence[int]]
    settings: RolloutSpec
    draw: torch.Tensor


class Lesson(NamedTuple):
    """A rank's share of one optimiser step: batches, as many for each. step: that are done"""

    step: int
    batches: list[list[Scored]]
    objective: Objective


class Member:
    """A rank. It keeps the whole student, to write, and its shards of it, to learn.

    writer: what writes the text of steps; with `max_lag` a copy that stays as it was while the student learns
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks

    def load(self, model: Model) -> None:
        if model.spec.deterministic:
            determinism.settle()
        self.whole: Student = load_student(*model)
        self.writer: Writer = Follower(self.whole) if model.spec.rollout.max_lag else self.whole
        self.sharded = Sharded(self.whole, self.ranks)

    def hear_through(self, heads: dict[str | None, OutputHead]) -> None:
        """The teachers' heads, which come on the processor."""
        self.sharded.teacher_heads = {name: head.on(self.whole.device) for name, head in heads.items()}

    def follow(self, _: None) -> None:
        self.writer.follow()

    def write(self, writing: Writing) -> list[Sampled]:
        """The own stretch."""
        draw = torch.Generator()
        draw.set_state(writing.draw)
        place, writer = self.ranks.place, self.writer if writing.beside else self.whole
        own = stretch(len(writing.prompts), place.rank, place.size)
        return list(writer.sample(writing.prompts, writing.settings, draw, own))

    def learn(self, lesson: Lesson, passing: Passing = pass_by, before: Before = unwatched) -> Metrics:
        """Raises ArithmeticError, on every rank. before: it sees `whole` as it was"""
        self.sharded.step = lesson.step
        told = self.sharded.learn_from(lesson.batches, lesson.objective, passing, before)
        self.sharded.publish()
        return told

    def save(self, folder: Path) -> None:
        """The own moments, on the disk of the machine that wrote them. Rank 0 has saved the whole weights."""
        self.sharded.write_moments(folder)
        checkpoint.settle(folder / shards.FOLDER)

    def restore(self, kept: tuple[Path, int]) -> None:
        """Weights and moments of a folder, and the step they are of. Rank 0 has read the whole weights."""
        folder, self.whole.step = kept
        if self.ranks.place.rank:
            saving.read_weights(self.whole, folder)
        self.sharded.take_up()
        self.sharded.read_moments(folder)
        self.writer.follow()

    def answer(self, _: None) -> None:
        """It is there."""


DUTIES: dict[str, Callable[[Member, Any], Any]] = {
    "load": Member.load,
    "hear_through": Member.hear_through,
    "follow": Member.follow,
    "write": Member.write,
    "learn": Member.learn,
    "save": Member.save,
    "restore": Member.restore,
    "answer": Member.answer,
}


def serve(ranks: Ranks) -> int:
    """Do what rank 0 says until it says that the run has ended, and how. That SIGTERM comes is rank 0's to hear."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    member = Member(ranks)
    while True:
        duty, given = ranks.scattered(None)
        if duty == END:
            ranks.leave()
            return given
        ended = ranks.gathered(outcome_of(lambda: DUTIES[duty](member, given)))  # noqa: B023 - called at once
        error = ended[ranks.place.rank][1]
        if error is not None:
            log.warning("a rank could not", extra={"rank": ranks.place.rank, "duty": duty, "reason": str(error)})


def outcome_of(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What came of it, or the error that was foreseen."""
    try:
        return work(), None
    except FORESEEN as error:
        return None, error


def stretch(count: int, rank: int, size: int) -> range:
    """A rank's part of so many, one behind the other."""
    return range(count * rank // size, count * (rank + 1) // size)


def divided(units: Sequence[Unit], size: int, max_tokens: int) -> list[list[list[Scored]]]:
    """By rank, the batches of its share, of short and long texts as much as any other.

    Who has fewer batches gets the shortest text once more with nothing to learn in it: blocks are gathered together.
    """
    ordered = sorted(units, key=by_length)
    shares = [list(cut(ordered[rank::size], max_tokens)) for rank in range(size)]
    most = max(map(len, shares))
    idle = [silenced(each) for unit in islice(ordered, 1) for each in unit]
    return [share + [idle] * (most - len(share)) for share in shares]
