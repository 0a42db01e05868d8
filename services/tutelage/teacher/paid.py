"""Work that is paid for: its most is reserved, the batcher has it done, and what it came to is settled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

from tutelage.engines import Engine
from tutelage.engines.checks import most_generated
from tutelage.rewards.judging import Answer, Messages
from tutelage.teacher.accounts import Accounts, Bill
from tutelage.teacher.activity import Record
from tutelage.teacher.admission import Limits, admit_generation, admit_rows
from tutelage.teacher.batcher import Batcher, Generated, Scored, Valued
from tutelage.teacher.callers import Caller
from tutelage.teacher.prices import most_scored
from tutelage_client.errors import TutelageError
from tutelage_client.wire import GenerateRequest, ScoreGroup, ScoreRequest, Usage

HOSTED = frozenset({"openai", "chat"})  # engines whose upstream bills each call that it answers, of use or not


class PaidWork:
    """What callers have the teacher `name` do. record: is told what each piece of it cost

    Everything here raises what the batcher raises, and BudgetSpent, RateLimited and what admission refuses.
    """

    def __init__(
        self, name: str, engine: Engine, batcher: Batcher, limits: Limits, accounts: Accounts, record: Record
    ) -> None:
        self._name = name
        self._engine = engine
        self._batcher = batcher
        self._limits = limits
        self._accounts = accounts
        self._record = record

    async def score(self, groups: Sequence[ScoreGroup], *, request: ScoreRequest, caller: Caller) -> Scored:
        """What the engine says of these groups of the request."""
        with self._paid(caller, self._most_scored(groups)) as bill:
            blocks, _ = await self._batcher.score(
                groups, request.signals, request.top_k, bill, own_batch=request.own_batch
            )
        return blocks, bill.usage

    async def value(self, rows: list[list[int]], *, caller: Caller) -> Valued:
        """What the reward model says."""
        most = admit_rows(rows, self._limits)
        caller.pace.take(most.forward_tokens)
        with self._paid(caller, most) as bill:
            values, _ = await self._batcher.reward(rows, bill)
        return values, bill.usage

    async def write(self, request: GenerateRequest, *, caller: Caller) -> Generated:
        """What the model writes."""
        tokens, most = self._admitted(request, caller)
        with self._paid(caller, most) as bill:
            generations, _ = await self._batcher.generate(request, tokens, bill)
        return generations, bill.usage

    async def judge(
        self, questions: Sequence[Messages], max_tokens: int, *, caller: Caller
    ) -> tuple[list[Answer], Usage]:
        """What the model says to each question, or why it says nothing, and what all of them cost."""
        temperature = 0.0 if self._engine.capabilities.greedy else 1.0
        request = GenerateRequest(prompts=list(questions), max_tokens=max_tokens, temperature=temperature)
        _, most = self._admitted(request, caller)
        each = [request.model_copy(update={"prompts": [prompt]}) for prompt in request.prompts]
        with self._paid(caller, most) as bill:
            answers = await asyncio.gather(*(self._answered(question, bill) for question in each))
        return answers, bill.usage

    async def _answered(self, question: GenerateRequest, bill: Bill) -> Answer:
        try:
            ((answer,),), _ = await self._batcher.generate(question, question.max_tokens, bill)
        except TutelageError as error:
            return error
        return answer

    def _most_scored(self, groups: Sequence[ScoreGroup]) -> Usage:
        """An upstream that bills also bills the token that it has to write after each sequence."""
        written = sum(len(group.completions) for group in groups) if self._is_hosted else 0
        return Usage(forward_tokens=most_scored(groups), generated_tokens=written)

    def _admitted(self, request: GenerateRequest, caller: Caller) -> tuple[int, Usage]:
        """The most tokens that the model writes, and the most that the request takes."""
        known = self._engine.capabilities
        tokens = admit_generation(request, known, self._limits, self._name)
        most = most_generated(request.prompts, request.n, request.max_tokens, known.max_length)
        caller.pace.take(most.forward_tokens + most.generated_tokens)
        return tokens, most

    @property
    def _is_hosted(self) -> bool:
        return self._engine.provenance.engine in HOSTED

    def _paid(self, caller: Caller, most: Usage) -> AbstractContextManager[Bill]:
        told = partial(self._record.spend, run_id=caller.run_id)
        return self._accounts.reserved(caller.accounts, most, told, bills_failures=self._is_hosted)
