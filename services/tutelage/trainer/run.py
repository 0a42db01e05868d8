"""Everything that a run is made of, wired by `build`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.core.objective import Objective
from tutelage.trainer.ahead import Ahead
from tutelage.trainer.crashes import Passing, pass_by
from tutelage.trainer.data import Example
from tutelage.trainer.ledger import Ledger
from tutelage.trainer.origin import Origin
from tutelage.trainer.pipeline import Pipeline
from tutelage.trainer.samplers import Samplers
from tutelage.trainer.session import Session
from tutelage.trainer.sourcing import Sources
from tutelage.trainer.student import Student
from tutelage.trainer.teachers import Teachers
from tutelage.trainer.tracking import Trackers
from tutelage_client.history import LearnedStep
from tutelage_client.spec import RunSpec


@dataclass
class Kept:
    """What of a run is on the disk.

    step: of the newest checkpoint; refused: why the last try to write one failed; notes: that the disk did not take yet
    spent_s, failures: seconds that saving took, and tries that the disk refused, since the last row
    """

    step: int | None = None
    refused: str | None = None
    notes: list[LearnedStep] = field(default_factory=list)
    spent_s: float = 0.0
    failures: int = 0


@dataclass
class Run:
    """One attempt at a run."""

    spec: RunSpec
    session: Session
    student: Student
    sources: Sources
    teachers: Teachers
    pipeline: Pipeline | None
    ahead: Ahead
    objective: Objective
    ledger: Ledger
    eval_examples: list[Example] | None
    artefacts: Path
    samplers: Samplers | None = None
    origin: Origin = field(default_factory=Origin)
    kept: Kept = field(default_factory=Kept)
    passing: Passing = pass_by
    trackers: Trackers = field(default_factory=Trackers)
    started_s: float = field(default_factory=time.monotonic)
