"""Whether somebody moved the database's clock, by which leases are measured."""

from __future__ import annotations

import time

from sqlalchemy import select

from tutelage.coordinator.db import Database, now


class ClockWatch:
    """Compares the database's clock with this process's own, which nobody can set.

    tolerance_s: a difference up to this may be a slow answer
    """

    def __init__(self, tolerance_s: float) -> None:
        self._tolerance_s = tolerance_s
        self._difference_s: float | None = None

    def moved(self, database: Database) -> bool:
        """Whether it was moved since the last call, in either direction."""
        with database.read() as session:
            told_s = session.scalars(select(now())).one()
        difference_s, before_s = told_s - time.monotonic(), self._difference_s
        self._difference_s = difference_s
        return before_s is not None and abs(difference_s - before_s) > self._tolerance_s
