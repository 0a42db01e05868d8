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
from tutelage.teacher.failures import EngineFailed
from tutelage.teacher.prices import most_scored
from tutelage_client.errors import TutelageError
from tutelage_client.wire import GenerateRequest, ScoreGroup, ScoreRequest, Usage


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
        with self._paid(caller, Usage(forward_tokens=most_scored(groups))) as bill:
            blocks, usage = await self._batcher.score(
                groups, request.signals, request.top_k, bill, own_batch=request.own_batch
            )
            bill.settle(usage)
        return blocks, usage

    async def value(self, rows: list[list[int]], *, caller: Caller) -> Valued:
        """What the reward model says."""
        most = admit_rows(rows, self._limits)
        caller.pace.take(most.forward_tokens)
        with self._paid(caller, most) as bill:
            values, usage = await self._batcher.reward(rows, bill)
            bill.settle(usage)
        return values, usage

    async def write(self, request: GenerateRequest, *, caller: Caller) -> Generated:
        """What the model writes."""
        tokens, most = self._admitted(request, caller)
        with self._paid(caller, most) as bill:
            generations, usage = await self._batcher.generate(request, tokens, bill)
            bill.settle(usage)
        return generations, usage

    async def judge(
        self, questions: Sequence[Messages], max_tokens: int, *, caller: Caller
    ) -> tuple[list[Answer], Usage]:
        """What the model says to each question, or why it says nothing, and what all of them cost."""
        temperature = 0.0 if self._engine.capabilities.greedy else 1.0
        request = GenerateRequest(prompts=list(questions), max_tokens=max_tokens, temperature=temperature)
        _, most = self._admitted(request, caller)
        each = [request.model_copy(update={"prompts": [prompt]}) for prompt in request.prompts]
        with self._paid(caller, most) as bill:
            told = await asyncio.gather(*(self._answered(question, bill) for question in each))
            usage = sum((spent for _, spent in told), Usage())
            bill.settle(usage)
        return [answer for answer, _ in told], usage

    async def _answered(self, question: GenerateRequest, bill: Bill) -> tuple[Answer, Usage]:
        try:
            ((answer,),), usage = await self._batcher.generate(question, question.max_tokens, bill)
        except TutelageError as error:
            return error, error.usage if isinstance(error, EngineFailed) else Usage()
        return answer, usage

    def _admitted(self, request: GenerateRequest, caller: Caller) -> tuple[int, Usage]:
        """The most tokens that the model writes, and the most that the request takes."""
        known = self._engine.capabilities
        tokens = admit_generation(request, known, self._limits, self._name)
        most = most_generated(request.prompts, request.n, request.max_tokens, known.max_length)
        caller.pace.take(most.forward_tokens + most.generated_tokens)
        return tokens, most

    def _paid(self, caller: Caller, most: Usage) -> AbstractContextManager[Bill]:
        return self._accounts.reserved(caller.accounts, most, partial(self._record.spend, run_id=caller.run_id))
