"""Who pays: tokens and dollars are reserved before work begins, at the most that it can come to, and settled after it.

An account holds what was settled and, at their most, the requests under way. It is written before the work begins, so
a crash loses nothing that was spent: it leaves the requests that were under way charged at their most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.teacher.ledgers import FileLedger, MemoryLedger, Totals
from tutelage.teacher.prices import PICO, Cost, cost
from tutelage.telemetry import TeacherMetrics
from tutelage_client.errors import TutelageError
from tutelage_client.wire import Prices, Usage


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


class Bill:
    """One request's costs. usage: what is owed for the engine calls that have ended

    bills_failures: a call is owed whatever came of it; else only where the request gets its answer
    """

    def __init__(self, owner: str, most: Cost, prices: Prices, *, bills_failures: bool) -> None:
        self.owner = owner
        self.most = most
        self.usage = Usage()
        self._prices = prices
        self._bills_failures = bills_failures
        self._under_way = 0

    def begin(self) -> None:
        """An engine call takes it up."""
        self._under_way += 1

    def end(self, usage: Usage, *, well: bool) -> None:
        """The call is over. usage: this request's share of what it took"""
        self._under_way -= 1
        if well or self._bills_failures:
            self.usage += usage

    def fail(self) -> None:
        """The request gets no answer."""
        if not self._bills_failures:
            self.usage = Usage()

    @property
    def due(self) -> Cost:
        """What is owed by now. What a call that is under way comes to is not known, so it counts as the most."""
        known = cost(self._prices, self.usage)
        return known.or_more(self.most) if self._under_way else known


class Accounts:
    """The totals of every account: in the file at `path`, else in memory.

    Raises:
        InvalidInput: the file cannot be used.
    """

    def __init__(self, path: Path | None, prices: Prices, metrics: TeacherMetrics) -> None:
        self.prices = prices
        self._metrics = metrics
        self._shown: dict[str, Cost] = {}
        self._under_way = 0
        self._closing = False
        self._ledger = MemoryLedger() if path is None else FileLedger(path)
        self._show(dict(self._ledger.every()))

    def total(self, name: str) -> Cost:
        """What an account holds."""
        return self._ledger.total(name)

    @contextmanager
    def reserved(
        self,
        accounts: Sequence[Account],
        most: Usage,
        told: Callable[[Cost], None] = lambda _: None,
        *,
        bills_failures: bool = False,
    ) -> Iterator[Bill]:
        """Hold what `most` costs on every account while the work is done; what the bill says is due stays.

        So who gives up while an engine call is under way pays the most.

        told: what was due, in the end; bills_failures: see `Bill`
        Raises:
            BudgetSpent: one of the accounts does not have that much left; then none was charged.
        """
        bill = Bill(accounts[0].name, cost(self.prices, most), self.prices, bills_failures=bills_failures)
        names = [account.name for account in accounts]
        self._show(self._ledger.add(names, bill.most, lambda totals: _check(accounts, totals, bill.most)))
        self._under_way += 1
        try:
            yield bill
        except Exception:
            bill.fail()
            raise
        finally:
            due = bill.due
            self._show(self._ledger.add(names, due - bill.most, _any))
            self._metrics.cost_usd.inc(due.picousd / PICO)
            told(due)
            self._under_way -= 1
            self._close_if_idle()

    def close(self) -> None:
        """Close the file, as soon as the last request under way is settled."""
        self._closing = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        if self._closing and self._under_way == 0:
            self._ledger.close()

    def _show(self, totals: Totals) -> None:
        new = totals.keys() - self._shown.keys()
        self._shown.update(totals)
        for name in new:
            self._metrics.spent_tokens.labels(name).set_function(lambda name=name: self._shown[name].tokens)
            self._metrics.spent_usd.labels(name).set_function(lambda name=name: self._shown[name].picousd / PICO)


def _any(_: Totals) -> None:
    """What is settled is owed, whatever the account may hold."""


def _check(accounts: Sequence[Account], totals: Totals, most: Cost) -> None:
    """Whether every account may hold its total, of which `most` would be new."""
    for account in accounts:
        tokens, usd, total = account.budget.tokens, account.budget.usd, totals[account.name]
        if tokens is not None and total.tokens > tokens:
            spent = total.tokens - most.tokens
            raise BudgetSpent(
                f"{account.name} has spent {spent} of {tokens} tokens and this request may take {most.tokens}; "
                + account.remedy
            )
        if usd is not None and total.picousd > round(usd * PICO):
            spent_usd = (total.picousd - most.picousd) / PICO
            raise BudgetSpent(
                f"{account.name} has spent {spent_usd:.6f} of {usd:g} USD and this request may take "
                f"{most.picousd / PICO:.6f}; {account.remedy}"
            )
