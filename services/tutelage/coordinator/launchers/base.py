"""What starts trainers for the coordinator: four verbs over launches, each of which has a name that is taken once.

A place keeps the name of a launch for as long as it lives and a day beyond, however it ended. What it has forgotten
since, the run's own history tells; see `launching`.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal, Protocol

from tutelage_client.errors import TutelageError
from tutelage_client.wire import ExitCode

# What a trainer that ended so has told the coordinator itself, or must not tell: nobody speaks for it.
TOLD = frozenset({ExitCode.DONE, ExitCode.USER_ERROR, ExitCode.TEACHER_LOST, ExitCode.DRAINED, ExitCode.FENCED})
STOPPED = 128 + signal.SIGTERM


class LaunchFailed(TutelageError):
    """What launches does not answer, or refuses; the message says which and why."""


@dataclass(frozen=True)
class Launch:
    """One attempt at a run. Nobody launches an attempt twice: its name is taken once."""

    run_id: str
    epoch: int

    @property
    def name(self) -> str:
        return f"{self.run_id}-e{self.epoch}"

    @property
    def variables(self) -> dict[str, str]:
        """What its trainer is told. Not by flags: torchrun takes `--run` for an abbreviation of one of its own."""
        return {"TUTELAGE_TRAINER_RUN": self.run_id, "TUTELAGE_TRAINER_NAME": self.name}


@dataclass(frozen=True)
class LaunchStatus:
    """Where a launch stands.

    phase: "absent" of one that was never launched, or that was forgotten since
    exit_code: of one that has ended, 128 + N where signal N ended it; None where nobody knows
    reason: what else is known of its end
    """

    phase: Literal["absent", "pending", "running", "ended"]
    exit_code: int | None = None
    reason: str | None = None

    @property
    def lives(self) -> bool:
        return self.phase in ("pending", "running")


class Launcher(Protocol):
    """Used from one event loop; any number of coordinators may have one over the same place.

    Every verb raises LaunchFailed where the place does not answer.
    """

    @property
    def kind(self) -> str:
        """As `--launcher` names it."""
        ...

    async def launch(self, launch: Launch) -> bool:
        """Start a trainer for this attempt, under its name; False: that name was launched before."""
        ...

    async def status(self, launch: Launch) -> LaunchStatus: ...

    async def signal(self, launch: Launch, number: Literal[signal.Signals.SIGTERM, signal.Signals.SIGKILL]) -> None:
        """SIGTERM: end in your own time, after a checkpoint; SIGKILL: now. To one that has ended it does nothing.

        Either way its name stays taken.
        """
        ...

    async def logs(self, launch: Launch, lines: int) -> str | None:
        """The last lines that it wrote; None: there are none, as of one that was never launched."""
        ...

    async def close(self) -> None: ...


def how_it_ended(status: LaunchStatus, launch: Launch) -> str:
    """A sentence about a launch that has ended."""
    code, what = status.exit_code, f"the launched trainer {launch.name}"
    if code is None:
        how = "ended, and nobody saw how"
    elif code > 128:
        how = f"was killed by signal {code - 128}"
    else:
        how = f"ended with code {code}"
    hint = "; if nobody killed it, the machine may be out of memory" if code == 128 + signal.SIGKILL else ""
    return f"{what} {how}{f' ({status.reason})' if status.reason else ''}{hint}"
