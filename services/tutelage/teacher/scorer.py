"""The scorer behind both doors: it admits a request, has it done in turn, and says who spoke."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from tutelage.engines import Engine
from tutelage.engines.base import LimitedEngine, RewardEngine
from tutelage.engines.probe import probe
from tutelage.engines.replicas import ReplicatedEngine
from tutelage.rewards import judge_rewards
from tutelage.rewards.models import model_rewards
from tutelage.serving.rates import RateLimited
from tutelage.teacher.accounts import Accounts, BudgetSpent
from tutelage.teacher.activity import Record
from tutelage.teacher.admission import Limits, admit_reward, admit_score
from tutelage.teacher.batcher import Batcher
from tutelage.teacher.cache import ScoreCache
from tutelage.teacher.callers import Caller
from tutelage.teacher.canary import Canary
from tutelage.teacher.failures import EngineAway, EngineFailed
from tutelage.teacher.grading import GradingLine
from tutelage.teacher.paid import PaidWork
from tutelage.teacher.prices import PICO, most_scored
from tutelage.telemetry import TeacherMetrics, describe_error
from tutelage.waiting import is_set_within
from tutelage_client.errors import BadScores, InvalidInput, TutelageError
from tutelage_client.wire import (
    GenerateReply,
    GenerateRequest,
    ModelReward,
    Overload,
    RewardModel,
    RewardReply,
    RewardRequest,
    ScoreReply,
    ScoreRequest,
    Spending,
    TeacherInfo,
    Usage,
)

log = logging.getLogger(__name__)


class Scorer:
    """One teacher.

    started_at: Unix time, seconds; probe: what it found out about itself
    not_ready: why it takes no work, None once the probe went well; set again when the engine's upstream goes away
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        batcher: Batcher,
        limits: Limits,
        accounts: Accounts,
        metrics: TeacherMetrics,
        cache: ScoreCache | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.batcher = batcher
        self.limits = limits
        self.grading = GradingLine()
        self.started_at = int(time.time())
        self.probe: dict[str, Any] = {"ok": False}
        self.not_ready: str | None = "the start-up probe has not run yet"
        self._accounts = accounts
        self._metrics = metrics
        self._cache = cache
        self._canary = Canary(engine, batcher)
        self._record = Record()
        self._work = PaidWork(name, engine, batcher, limits, accounts, self._record)
        self._was_ready = False

    async def close(self) -> None:
        """End the processes that grade."""
        await self.grading.close()

    def info(self) -> TeacherInfo:
        return TeacherInfo(
            name=self.name,
            capabilities=self.engine.capabilities,
            provenance=self.engine.provenance,
            probe=self.probe,
            prices=self._accounts.prices,
            replicas=self.engine.views() if isinstance(self.engine, ReplicatedEngine) else (),
            score_cache=self._cache.view() if self._cache else None,
            overload=self.overload,
            breaker=self.engine.breaker if isinstance(self.engine, LimitedEngine) else None,
            activity=self._record.view(),
        )

    @property
    def overload(self) -> Overload | None:
        """Why its upstream takes no work, where that is for its limits."""
        return self.engine.overload if isinstance(self.engine, LimitedEngine) else None

    @property
    def is_known(self) -> bool:
        """Whether it is to be told of: it works, or did and waits for the limits of its upstream."""
        return self.not_ready is None or (self._was_ready and self.overload is not None)

    def spending(self, caller: Caller) -> Spending:
        """What the caller's own account holds, and the most that it may."""
        account = caller.account
        total = self._accounts.total(account.name)
        return Spending(
            account=account.name,
            tokens=total.tokens,
            usd=total.picousd / PICO,
            budget_tokens=account.budget.tokens,
            budget_usd=account.budget.usd,
        )

    async def score(self, request: ScoreRequest, caller: Caller) -> ScoreReply:
        """Raises: CapabilityMissing, InvalidInput, RateLimited, BudgetSpent, BadScores, EngineFailed."""
        with self._counted(caller.door):
            groups = admit_score(request, self.engine.capabilities, self.limits, self.name)
            caller.pace.take(most_scored(groups))
            ask = partial(self._work.score, request=request, caller=caller)
            if self._cache is None or request.own_batch:
                blocks, usage = await ask(groups)
            else:
                blocks, usage = await self._cache.score(groups, request.signals, request.top_k, ask)
            # The batcher has checked every block; validation would do so again.
            return ScoreReply.model_construct(scores=tuple(blocks), provenance=self.engine.provenance, usage=usage)

    async def generate(self, request: GenerateRequest, caller: Caller) -> GenerateReply:
        """Raises: CapabilityMissing, InvalidInput, RateLimited, BudgetSpent, EngineFailed."""
        with self._counted(caller.door):
            generations, usage = await self._work.write(request, caller=caller)
            return GenerateReply(generations=generations, provenance=self.engine.provenance, usage=usage)

    async def reward(self, request: RewardRequest, caller: Caller) -> RewardReply:
        """Raises: CapabilityMissing, InvalidInput, RateLimited, BudgetSpent, EngineFailed."""
        with self._counted(caller.door):
            admit_reward(request, self.engine.capabilities, self.limits, self.name)
            if isinstance(request.reward, RewardModel):
                assert isinstance(self.engine, RewardEngine)  # or it would not have been admitted
                value = partial(self._work.value, caller=caller)
                rewards, usage = await model_rewards(self.engine, value, request.items)
            elif isinstance(request.reward, ModelReward):
                rewards, usage = await judge_rewards(request, partial(self._work.judge, caller=caller))
            else:
                caller.pace.take(tokens=0)
                rewards, usage = await self.grading.grade(request.reward, request.items, caller.account.name), Usage()
            return RewardReply(rewards=tuple(rewards), provenance=self.engine.provenance, usage=usage)

    async def become_ready(self, stopping: asyncio.Event, again_after_s: float = 2.0) -> None:
        """Probe again until the probe goes well, as a failure may be a passing one, or until told to stop."""
        while self.not_ready is not None and not await is_set_within(stopping, again_after_s):
            await self.probe_once()

    async def stay_ready(self, stopping: asyncio.Event, look_every_s: float = 1.0) -> None:
        """Become ready, and again whenever that was lost, until told to stop."""
        await self.become_ready(stopping)
        while not await is_set_within(stopping, look_every_s):
            await self.become_ready(stopping)

    async def watch(self, every_s: float) -> None:
        """While it is ready, ask the known question every so often; another answer ends that. Until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            if self.not_ready is not None:
                continue
            try:
                await self._canary.look()
            except TutelageError as error:
                log.warning("the canary failed", extra=describe_error(error))
                self._metrics.canaries.labels("failed").inc()
                self._record.canary(str(error))
                self._refuse(error)
            else:
                self._metrics.canaries.labels("ok").inc()
                self._record.canary(None)

    def _refuse(self, error: TutelageError) -> None:
        """Take no work, and say why."""
        self.not_ready, self.probe = str(error), {"ok": False, "reason": str(error)}

    async def probe_once(self) -> None:
        """Ask the probe and remember what it found; the first known answer is the truth from then on."""
        try:
            found = await probe(self.batcher, self.engine)
            self._canary.hold(found.get("known_answer", ()))
        except TutelageError as error:
            log.warning("the probe failed", extra=describe_error(error))
            self._refuse(error)
        else:
            if self._cache is not None:
                await self._cache.begin(found.get("known_answer", ()))
            self.not_ready, self.probe, self._was_ready = None, {"ok": True, **found}, True

    @contextmanager
    def _counted(self, door: str) -> Iterator[None]:
        outcome = "dropped"
        try:
            with self._record.timed():
                yield
            outcome = "ok"
        except (InvalidInput, RateLimited, BudgetSpent):
            outcome = "refused"
            raise
        except EngineAway as error:
            outcome = "failed"
            self.not_ready = str(error)
            raise
        except (BadScores, EngineFailed):
            outcome = "failed"
            raise
        finally:
            self._metrics.requests.labels(door, outcome).inc()
