"""Who pays: tokens and dollars are reserved before work begins, at the most that it can come to, and settled after it.

An account holds what was settled and, at their most, the requests under way. It is written before the work begins, so
a crash loses nothing that was spent: it leaves the requests that were under way charged at their most.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.teacher.prices import PICO, Cost, Prices
from tutelage.telemetry import TeacherMetrics
from tutelage_client.errors import InvalidInput, TutelageError
from tutelage_client.wire import Usage

_TABLE = """CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY, tokens INTEGER NOT NULL DEFAULT 0, picousd INTEGER NOT NULL DEFAULT 0
) STRICT"""
_TOTAL = "SELECT tokens, picousd FROM account WHERE name = ?"
_ADD = """INSERT INTO account VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET tokens = tokens + excluded.tokens, picousd = picousd + excluded.picousd
    RETURNING tokens, picousd"""


class BudgetSpent(TutelageError):
    """The most that this request can cost is more than what is left."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that an account may ever hold; None is no limit."""

    tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Where costs go. remedy: what its owner can do when the budget is spent"""

    name: str
    budget: Budget = field(default_factory=Budget)
    remedy: str = ""


Check = Callable[[Account, Cost, Cost], None]  # account, what it would hold, what of that would be new


class Bill:
    """One request's costs. begun: an engine call has taken it up, so giving up costs what was reserved"""

    def __init__(self, owner: str, most: Cost, prices: Prices) -> None:
        self.owner = owner
        self.most = most
        self.begun = False
        self._prices = prices
        self._settled: Cost | None = None

    def settle(self, usage: Usage) -> None:
        """What the request really took."""
        self._settled = self._prices.cost(usage)

    def due(self, *, given_up: bool) -> Cost:
        """What is owed at the end. A failed request costs nothing."""
        if self._settled is not None:
            return self._settled
        return self.most if given_up and self.begun else Cost()


class Accounts:
    """The totals of every account, in SQLite: in the file at `path`, else in memory.

    Teachers on one machine may share a file: each reservation is one transaction.

    Raises:
        InvalidInput: the file cannot be used.
    """

    def __init__(self, path: Path | None, prices: Prices, metrics: TeacherMetrics) -> None:
        self.prices = prices
        self._metrics = metrics
        self._under_way = 0
        self._closing = False
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_TABLE)
            for name, *total in self._db.execute("SELECT name, tokens, picousd FROM account"):
                self._show(name, Cost(*total))
        except sqlite3.Error as error:
            raise InvalidInput(
                f"the accounts file {path} cannot be used: {error}; name another", "accounts_file"
            ) from error

    def total(self, name: str) -> Cost:
        """What an account holds."""
        row = self._db.execute(_TOTAL, (name,)).fetchone()
        return Cost(*row) if row else Cost()

    @contextmanager
    def reserved(self, accounts: Sequence[Account], most: Usage) -> Iterator[Bill]:
        """Hold what `most` costs on every account while the work is done; what the bill says is due stays.

        Raises:
            BudgetSpent: one of the accounts does not have that much left; then none was charged.
        """
        bill = Bill(accounts[0].name, self.prices.cost(most), self.prices)
        self._charge(accounts, bill.most, _check)
        given_up = False
        self._under_way += 1
        try:
            yield bill
        except asyncio.CancelledError:
            given_up = True
            raise
        finally:
            self._charge(accounts, bill.due(given_up=given_up) - bill.most)
            self._under_way -= 1
            self._close_if_idle()

    def close(self) -> None:
        """Close the file, as soon as the last request under way is settled."""
        self._closing = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._closing and self._under_way == 0:
            self._db.close()

    def _charge(self, accounts: Sequence[Account], cost: Cost, check: Check = lambda *_: None) -> None:
        """Add `cost` to all of the accounts, or to none where `check` raises for one of them as it would be then."""
        totals: dict[str, Cost] = {}
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for account in accounts:
                ((tokens, picousd),) = self._db.execute(_ADD, (account.name, cost.tokens, cost.picousd))
                totals[account.name] = Cost(tokens, picousd)
                check(account, totals[account.name], cost)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
        for name, total in totals.items():
            self._show(name, total)

    def _show(self, name: str, total: Cost) -> None:
        self._metrics.spent_tokens.labels(name).set(total.tokens)
        self._metrics.spent_usd.labels(name).set(total.picousd / PICO)


def _check(account: Account, total: Cost, most: Cost) -> None:
    """Whether the account may hold `total`, of which `most` would be new."""
    tokens, usd, spent = account.budget.tokens, account.budget.usd, total - most
    if tokens is not None and total.tokens > tokens:
        raise BudgetSpent(
            f"{account.name} has spent {spent.tokens} of {tokens} tokens and this request may take {most.tokens}; "
            + account.remedy
        )
    if usd is not None and total.picousd > round(usd * PICO):
        raise BudgetSpent(
            f"{account.name} has spent {spent.picousd / PICO:.6f} of {usd:g} USD and this request may take "
            f"{most.picousd / PICO:.6f}; {account.remedy}"
        )
