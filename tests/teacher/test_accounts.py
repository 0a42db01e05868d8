"""Reserve, then settle: whatever runs at the same time, no account ever holds more than its budget."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from tutelage.teacher.accounts import Account, Accounts, Bill, Budget, BudgetSpent
from tutelage.teacher.failures import EngineFailed
from tutelage.teacher.prices import PICO, Cost, cost
from tutelage.telemetry import TeacherMetrics
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Prices, Usage

PRICES = Prices(input=0.15, cached=0.0375, output=0.6)


def opened(path: Path | None = None) -> Accounts:
    return Accounts(path, PRICES, TeacherMetrics.of(CollectorRegistry()))


class Spending(RuleBasedStateMachine):
    """Requests of one key for two runs that begin, end well, fail before and after a call, or are given up."""

    key = Account("key", Budget(tokens=1000, usd=0.0002))
    runs = (Account("run 0", Budget(tokens=400)), Account("run 1"))

    def __init__(self) -> None:
        super().__init__()
        self.accounts = opened()
        self.open: list[tuple[ExitStack, Bill, Account, bool]] = []
        self.held = {account.name: Cost() for account in (self.key, *self.runs)}

    @rule(run=st.sampled_from(runs), forward=st.integers(0, 400), written=st.integers(0, 200), hosted=st.booleans())
    def begin(self, run: Account, forward: int, written: int, hosted: bool) -> None:
        most = Usage(forward_tokens=forward, generated_tokens=written)
        most_cost = cost(PRICES, most)
        fits = all(
            (a.budget.tokens is None or self.held[a.name].tokens + most_cost.tokens <= a.budget.tokens)
            and (a.budget.usd is None or self.held[a.name].picousd + most_cost.picousd <= round(a.budget.usd * PICO))
            for a in (self.key, run)
        )
        stack = ExitStack()
        try:
            bill = stack.enter_context(self.accounts.reserved((self.key, run), most, bills_failures=hosted))
        except BudgetSpent:
            assert not fits
            return
        assert fits
        self.open.append((stack, bill, run, hosted))
        self.hold(run, most_cost)

    @precondition(lambda self: self.open)
    @rule(
        data=st.data(),
        part=st.floats(0, 1),
        how=st.sampled_from(["settled", "repeated", "failed", "wasted", "given up"]),
    )
    def end(self, data: st.DataObject, part: float, how: str) -> None:
        stack, bill, run, hosted = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        due = Cost()
        usage = Usage(cached_tokens=int(part * bill.most.tokens / 2))
        if how in ("repeated", "wasted"):
            bill.begin()
            bill.end(usage, well=False)
            due = cost(PRICES, usage) if hosted else Cost()
        if how in ("settled", "repeated"):
            bill.begin()
            bill.end(usage, well=True)
            due += cost(PRICES, usage)
        if how == "given up" and part > 0.5:
            bill.begin()
            due = bill.most
        errors = {"failed": RuntimeError(), "wasted": EngineFailed(""), "given up": asyncio.CancelledError()}
        error = errors.get(how)
        stack.__exit__(type(error) if error else None, error, None)
        self.hold(run, due - bill.most)

    def hold(self, run: Account, change: Cost) -> None:
        for name in (self.key.name, run.name):
            held = self.held[name]
            self.held[name] = Cost(held.tokens + change.tokens, held.picousd + change.picousd)

    @invariant()
    def an_account_holds_what_is_due_and_never_more_than_its_budget(self) -> None:
        for account in (self.key, *self.runs):
            total = self.accounts.total(account.name)
            assert total == self.held[account.name]
            assert account.budget.tokens is None or 0 <= total.tokens <= account.budget.tokens
            assert account.budget.usd is None or 0 <= total.picousd <= round(account.budget.usd * PICO)

    def teardown(self) -> None:
        for stack, *_ in self.open:
            stack.close()
        self.accounts.close()


Spending.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSpending = Spending.TestCase


async def test_many_requests_at_once_never_overspend() -> None:
    accounts, served = opened(), 0
    account = Account("key", Budget(tokens=1000), "ask the operator")

    async def ask(i: int) -> None:
        nonlocal served
        with accounts.reserved((account,), Usage(forward_tokens=90)) as bill:
            for _ in range(i % 5):
                await asyncio.sleep(0)
                assert accounts.total("key").tokens <= 1000
            served += 60
            bill.begin()
            bill.end(Usage(forward_tokens=60), well=True)

    results = await asyncio.gather(*(ask(i) for i in range(200)), return_exceptions=True)
    refused = [str(result) for result in results if isinstance(result, BudgetSpent)]
    assert served == accounts.total("key").tokens <= 1000
    assert len(refused) + served // 60 == 200
    assert all("of 1000 tokens and this request may take 90; ask the operator" in said for said in refused)
    accounts.close()


def test_a_restart_remembers_and_charges_what_was_under_way_at_its_most(tmp_path: Path) -> None:
    path, account = tmp_path / "accounts.db", Account("key", Budget(tokens=1000))
    crashing = opened(path)
    with crashing.reserved((account,), Usage(forward_tokens=100)) as bill:
        bill.begin()
        bill.end(Usage(forward_tokens=70), well=True)
    under_way = crashing.reserved((account,), Usage(forward_tokens=500))
    under_way.__enter__()
    after = opened(path)
    assert after.total("key").tokens == 570
    with pytest.raises(BudgetSpent), after.reserved((account,), Usage(forward_tokens=431)):
        pass
    under_way.__exit__(None, None, None)
    assert after.total("key").tokens == 70, "two teachers may share a file"
    crashing.close()
    after.close()


def test_a_file_that_is_no_database_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "accounts.db").write_text("these are no accounts, but a long enough text" * 99)
    with pytest.raises(InvalidInput, match=r"accounts\.db cannot be used: file is not a database; name another"):
        opened(tmp_path / "accounts.db")


def test_a_key_and_a_run_are_charged_both_or_neither() -> None:
    accounts = opened()
    key, run = Account("key"), Account("run", Budget(tokens=10))
    with pytest.raises(BudgetSpent), accounts.reserved((key, run), Usage(forward_tokens=11)):
        pass
    assert accounts.total("key") == accounts.total("run") == Cost()
    accounts.close()


def test_money_is_exact() -> None:
    usage = Usage(forward_tokens=1, cached_tokens=2, generated_tokens=3)
    assert cost(PRICES, usage) == Cost(tokens=4, picousd=150_000 + 2 * 37_500 + 3 * 600_000)
