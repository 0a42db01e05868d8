"""DistiLLM's adaptive off-policy schedule (arXiv:2402.03898): whose text a step learns from, and the student's older.

`Share` is part of the ledger and the buffer a file of the checkpoint, so a resumed run goes on with both as they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tutelage_client.spec import Adaptive
from tutelage_client.wire import Rollout

BUFFER = "replay.jsonl"
Text = Literal["data", "fresh", "replayed"]


@dataclass(frozen=True, slots=True)
class Share:
    """How often the share of the student's text rose, and the held-out loss that the next rise is measured from."""

    rises: int = 0
    loss: float | None = None

    def of(self, schedule: Adaptive) -> float:
        """phi: the share of steps that learn from the student's text."""
        return min(1.0, schedule.initial_share + schedule.rise * self.rises)

    def after(self, loss: float, schedule: Adaptive) -> Share:
        """Once this loss was measured: phi rises where it is at least the last one plus the tolerance.

        The loss that it is compared with moves only then, as in the released code.
        """
        if self.loss is None:
            return Share(self.rises, loss)
        return Share(self.rises + 1, loss) if loss >= self.loss + schedule.tolerance else self


class Replay:
    """The schedule of a run of `steps` steps, and its buffer: the newest rollouts that the student wrote, oldest first.

    Each keeps the version and the log mu of its writing.
    """

    def __init__(self, schedule: Adaptive, steps: int) -> None:
        self.schedule = schedule
        self.steps = steps
        self.rollouts: list[Rollout] = []

    def text_of(self, step: int, draw: float, share: Share) -> Text:
        """From which text a step, counted from 0, learns by one number drawn from [0, 1).

        Below phi (1 - step / steps) fresh, and below phi as long as the buffer is not full; else below phi replayed.
        """
        phi = share.of(self.schedule)
        if draw >= phi:
            return "data"
        full = len(self.rollouts) == self.schedule.capacity
        return "replayed" if full and draw >= phi * (1 - step / self.steps) else "fresh"

    def keep(self, written: Iterable[Rollout]) -> None:
        """Once they were learned from: a step that is cut off and done again leaves nothing twice."""
        self.rollouts = [*self.rollouts, *written][-self.schedule.capacity :]

    def drawn(self, count: int, seed: int) -> Sequence[Rollout]:
        """So many different ones, at random."""
        chosen = np.random.default_rng(seed).choice(len(self.rollouts), count, replace=False)
        return [self.rollouts[i] for i in chosen]

    def write(self, folder: Path) -> None:
        lines = (rollout.model_dump_json() + "\n" for rollout in self.rollouts)
        (folder / BUFFER).write_text("".join(lines), encoding="utf-8")

    def read(self, folder: Path) -> None:
        with (folder / BUFFER).open(encoding="utf-8") as lines:
            self.rollouts = [Rollout.model_validate_json(line) for line in lines]
