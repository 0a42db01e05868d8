"""Where the totals of accounts stand: in memory while nobody asks to remember them, else in a file of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tutelage.teacher.prices import Cost
from tutelage_client.errors import InvalidInput

Totals = Mapping[str, Cost]
Check = Callable[[Totals], None]

_TABLE = """CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY, tokens INTEGER NOT NULL DEFAULT 0, picousd INTEGER NOT NULL DEFAULT 0
) STRICT"""
_TOTAL = "SELECT tokens, picousd FROM account WHERE name = ?"
_ADD = """INSERT INTO account VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens, picousd = picousd + excluded.picousd
    RETURNING tokens, picousd"""


_NOTHING = Cost()


class Ledger(Protocol):
    def total(self, name: str) -> Cost:
        """What an account holds."""
        ...

    def add(self, names: Sequence[str], cost: Cost, check: Check) -> Totals:
        """Add `cost` to all of the accounts, or to none where `check` raises of what they would hold then."""
        ...

    def every(self) -> Iterator[tuple[str, Cost]]:
        """Each account that holds something from before."""
        ...

    def close(self) -> None: ...


class MemoryLedger:
    """Totals of this process."""

    def __init__(self) -> None:
        self._totals: dict[str, Cost] = {}

    def total(self, name: str) -> Cost:
        return self._totals.get(name, _NOTHING)

    def add(self, names: Sequence[str], cost: Cost, check: Check) -> Totals:
        totals = {name: self.total(name) + cost for name in names}
        check(totals)
        self._totals |= totals
        return totals

    def every(self) -> Iterator[tuple[str, Cost]]:
        return iter(self._totals.items())

    def close(self) -> None:
        """Nothing is held open."""


class FileLedger:
    """Totals that survive a crash. Teachers on one machine may share the file: each change is one transaction.

    Raises:
        InvalidInput: the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_TABLE)
        except sqlite3.Error as error:
            raise InvalidInput(
                f"the accounts file {path} cannot be used: {error}; name another", "accounts_file"
            ) from error

    def total(self, name: str) -> Cost:
        row = self._db.execute(_TOTAL, (name,)).fetchone()
        return Cost(*row) if row else Cost()

    def add(self, names: Sequence[str], cost: Cost, check: Check) -> Totals:
        totals: dict[str, Cost] = {}
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for name in names:
                ((tokens, picousd),) = self._db.execute(_ADD, (name, cost.tokens, cost.picousd))
                totals[name] = Cost(tokens, picousd)
            check(totals)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        return totals

    def every(self) -> Iterator[tuple[str, Cost]]:
        for name, tokens, picousd in self._db.execute("SELECT name, tokens, picousd FROM account"):
            yield name, Cost(tokens, picousd)

    def close(self) -> None:
        self._db.close()
