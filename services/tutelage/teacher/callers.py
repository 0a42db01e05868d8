"""Who asks: the door they came by, the accounts that pay, and how fast they may."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tutelage.serving import ServiceProblem
from tutelage.serving.rates import Pace
from tutelage.teacher.accounts import Account, Budget
from tutelage.teacher.keys import Key, Scope, find_key
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import RUN_HEADER

_TOLD = HTTPBearer(auto_error=False, description="a key of the teacher's --keys-file; without that none is needed")
Told = Annotated[HTTPAuthorizationCredentials | None, Security(_TOLD)]
BEARER: dict[str, Any] = {"security": [{_TOLD.scheme_name: []}]}  # of a route that FastAPI does not look into
# What a key must be allowed by route; a route that is not here needs a key alone.
SCOPES: dict[str, frozenset[Scope]] = {
    "/v1/score": frozenset({Scope.SCORE}),
    "/v1/head": frozenset({Scope.SCORE}),
    "/v1/generate": frozenset({Scope.GENERATE}),
    "/v1/reward": frozenset({Scope.REWARD}),
    "/v1/completions": frozenset({Scope.SCORE, Scope.GENERATE}),  # one body may ask for both
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The first of `accounts` is the caller's own; all of them pay. run_id: of the run that asks, where one does"""

    door: Literal["http", "queue"]
    accounts: tuple[Account, ...]
    pace: Pace
    run_id: str | None = None

    @property
    def account(self) -> Account:
        return self.accounts[0]


class Callers:
    """Everybody who may ask. keys: None lets anyone; run_budget: of every run, over both doors"""

    def __init__(self, keys: Sequence[Key] | None, run_budget: Budget) -> None:
        self._keys = keys
        self._run_budget = run_budget
        self._anyone = _caller(Account("anyone"), Pace("anyone", None, None))
        self._by_name = {key.name: _caller_of(key) for key in keys or ()}

    def for_run(self, run_id: str) -> Caller:
        """A run that asks through the queue."""
        return Caller("queue", (self._run(run_id),), self._anyone.pace, run_id)

    async def __call__(self, request: Request, _: Told) -> None:
        """A route dependency: let known keys pass where they may; the route finds the `Caller` by `CallerOf`."""
        request.state.caller = self.of(request)

    def of(self, request: Request) -> Caller:
        """Who sent this request.

        Raises:
            ServiceProblem: 401 without a known key, 403 with one that may not. InvalidInput: the id of a run is none.
        """
        caller = self._anyone if self._keys is None else self._known(self._keys, request)
        run_id = request.headers.get(RUN_HEADER)
        if run_id is not None:
            if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", run_id):
                raise InvalidInput(f"{RUN_HEADER} is {run_id[:64]!r}, which is not the id of a run", RUN_HEADER)
            caller = Caller("http", (*caller.accounts, self._run(run_id)), caller.pace, run_id)
        return caller

    def _known(self, keys: Sequence[Key], request: Request) -> Caller:
        key = find_key(keys, request.headers.get("authorization", ""))
        if key is None:
            detail = "this teacher needs a key it knows; send it as 'Authorization: Bearer KEY'"
            raise ServiceProblem(401, "unauthorized", detail, headers={"WWW-Authenticate": "Bearer"})
        lacks = SCOPES.get(request.scope["route"].path, frozenset()) - key.scopes
        if lacks:
            has = ", ".join(sorted(key.scopes)) or "none"
            detail = f"the key {key.name!r} lacks the scope {min(lacks).value!r}; it has {has}"
            raise ServiceProblem(403, "out_of_scope", detail)
        return self._by_name[key.name]

    def _run(self, run_id: str) -> Account:
        return Account(f"run {run_id}", self._run_budget, "its teacher's --run-budget-tokens or -usd says how much")


async def caller_of(request: Request) -> Caller:  # async, or FastAPI asks a thread
    """Who sent this request, as `Callers` found."""
    return request.state.caller


CallerOf = Annotated[Caller, Depends(caller_of)]


def _caller(account: Account, pace: Pace) -> Caller:
    return Caller("http", (account,), pace)


def _caller_of(key: Key) -> Caller:
    name = f"key {key.name}"
    budget = Budget(key.budget_tokens, key.budget_usd)
    account = Account(name, budget, "the teacher's operator sets budget_tokens and budget_usd in the keys file")
    return _caller(account, Pace(name, key.requests_per_s, key.tokens_per_s))
