"""The queue on Redis Streams, for Redis >= 7.0 and Valkey.

Keys, all below `tutelage:`; one queue's keys share a hash tag:

    {NAME}:jobs      stream, one entry a delivery-to-be, with the consumer group `teachers`; entries carry only a job id
    {NAME}:tail      the last delivered entry
    {NAME}:live      sorted set of job ids that wait or are leased, by the time of their put
    {NAME}:load      hash, the tokens and bytes of these jobs
    {NAME}:told      hash, how often a job was delivered again, was given up, was answered without effect
    {NAME}:next      the run that found no room and goes first, for as long as it keeps asking
    {NAME}:asking    sorted set of workers by the time when they last asked for work
    {NAME}:clock     the server's time at a recent look, to notice that it was set back
    {NAME}:dead      sorted set of job ids that were given up, by the time of that
    job:ID           hash, the one truth about a job: state (queued, answered, dead), queue, run, tokens, bytes,
                     envelope, entry, attempts, worker, put_ms, answer, reason, history, and `to:REPLY_TO` = run id for
                     all who asked
    run:ID           set of a run's live job ids, for `cancel`
    replies:NAME     stream of ids of jobs that ended
    blob:SHA256      a larger body (see `blobs`)

How it holds together:

- Each change of state is one call of a function (`ops.lua` on `stream.lua` on `state.lua`), so it happens whole or not
  at all. The function also makes the XREADGROUP and the XAUTOCLAIM. Who waits sends an XREAD that blocks until the
  stream has a newer entry, and the call behind it: the server goes on with it by itself. The functions are a library on
  the server, named by the hash of its text: unlike versions go side by side, and who misses its own loads it.
- The hash names the stream entry that stands for the job. An entry that its job does not name (cancelled, given
  back, added anew) is dropped when it is delivered. Streams are never trimmed, which would lose work without a word,
  and no entry at or after the last delivered one is deleted, which would blind the `lag` that autoscalers read.
- A lease is a pending entry: its idle time, on the server's clock, is the age of the lease. Answer, fail, renew and
  release check that entry, attempt and worker are still those of the delivery.
- A reply stream says which jobs ended; their present state is read when it is. An answer that expired or that was
  replayed since is skipped: asking again is always safe.
- Everything about a job expires `answer_ttl_s` after its last change.

Durations come from the server's clock alone. The server is a transport: after a loss whoever asks puts its
outstanding jobs again. One primary, with replicas if wanted; a sharded cluster is not supported, because a job, its
answer and its reply stream lie in different slots.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TypeVar

from tutelage.queue import envelope
from tutelage.queue.base import Answer, DeadLetter, Delivery, Depth, Failure, Job, Put, QueueLimits, ServerMemory
from tutelage.queue.blobs import Blobs, DamagedBody, sound
from tutelage.queue.server import MAX_BLOCK_S, Server

log = logging.getLogger(__name__)

ANSWERS_A_READ = 64  # bounds the memory of one read: an answer may be a megabyte
JOBS_A_CALL = 256  # bounds the time for which one call holds the server
Item = TypeVar("Item")


class RedisQueue:
    """`Queue` on one Redis or Valkey server; any number of processes may hold one."""

    def __init__(self, url: str, limits: QueueLimits, password: str | None = None) -> None:
        self._server = Server(url, limits, password)
        self._blobs = Blobs(self._server, limits)
        self._limits = limits
        self._emptied: dict[str, str] = {}  # the newest entry of a queue that had nothing left for its last lease

    async def put(self, jobs: Sequence[Job]) -> list[Put]:
        results: list[Put] = []
        full: set[str] = set()
        for part in _parts(jobs):
            offered = [job for job in part if job.queue not in full]
            told = iter(await self._offer(offered))
            now = [Put.FULL if job.queue in full else next(told) for job in part]
            full |= {job.queue for job, put in zip(part, now, strict=True) if put is Put.FULL}
            results += now
        return results

    async def _offer(self, jobs: Sequence[Job]) -> list[Put]:
        references = await self._blobs.store([envelope.pack(job) for job in jobs])
        named = [
            (job.id, job.queue, job.run_id, job.reply_to, job.tokens, len(job.payload), reference)
            for job, reference in zip(jobs, references, strict=True)
        ]
        return [Put(state.decode()) for state in await self._server.op("put", *chain.from_iterable(named))]

    async def lease(self, queue: str, worker: str, *, count: int, wait_s: float) -> list[Delivery]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_s
        # Nothing announces that a lease ran out: look again at least once in the time that a lease lasts.
        slice_s = min(self._limits.lease_s, MAX_BLOCK_S)
        after = self._emptied.pop(queue, None) if wait_s > 0 else None
        while True:
            take, left_s = ("take", queue, worker, count), deadline - clock()
            if after is not None and left_s > 0:
                stream = f"tutelage:{{{queue}}}:jobs"
                taken, end = await self._server.op_once(stream, after, min(left_s, slice_s), *take)
            else:
                taken, end = await self._server.op(*take)
            after = None if end is None else end.decode()
            deliveries = await self._opened(worker, taken)
            if deliveries or clock() >= deadline:
                if after is not None:
                    self._emptied[queue] = after
                return deliveries

    async def renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        lost: list[Delivery] = []
        for worker in dict.fromkeys(d.worker for d in deliveries):
            mine = [d for d in deliveries if d.worker == worker]
            handles = [part for d in mine for part in (d.job.id, d.receipt, d.attempt)]
            kept = await self._server.op("renew", worker, *handles)
            lost += [d for d, is_kept in zip(mine, kept, strict=True) if not is_kept]
        return lost

    async def answer(self, answered: Sequence[tuple[Delivery, bytes]]) -> list[bool]:
        kept: list[int] = []
        for part in _parts(answered):
            references = await self._blobs.store([payload for _, payload in part])
            named = [(*_handle(each), reference) for (each, _), reference in zip(part, references, strict=True)]
            kept += await self._server.op("answer", *chain.from_iterable(named))
        return [bool(each) for each in kept]

    async def fail(self, delivery: Delivery, reason: str, *, retry: bool = True) -> bool:
        return bool(await self._server.op("fail", *_handle(delivery), reason, int(retry)))

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            await self._server.op("release", *_handle(delivery))

    async def answers(self, reply_to: str, *, after: str, wait_s: float) -> tuple[list[Answer], str]:
        clock = asyncio.get_running_loop().time
        deadline = clock() + wait_s
        while True:
            read, left_s = ("read", reply_to, after, ANSWERS_A_READ), deadline - clock()
            if left_s > 0:
                told = await self._server.op_once(f"tutelage:replies:{reply_to}", after, left_s, *read)
            else:
                told = await self._server.op(*read)
            newest, results = told
            after = newest.decode()
            if results and (ended := await self._ended(results)):
                return ended, after
            if left_s <= 0 and not results:
                return [], after

    async def fetch(self, job_id: str) -> Answer | None:
        state = await self._server.op("result", job_id)
        return next(iter(await self._ended([state])), None)

    async def depth(self, queue: str) -> Depth:
        waiting, leased, dead, oldest_ms, *counted = await self._server.op("depth", queue)
        return Depth(waiting, leased, dead, None if oldest_ms is None else oldest_ms / 1000, *counted)

    async def memory(self) -> ServerMemory | None:
        told = await self._server.memory()
        return None if told is None else ServerMemory(told["used_memory"], told["maxmemory"] or None)

    async def dead_letters(self, queue: str) -> list[DeadLetter]:
        letters = await self._server.op("dead_letters", queue)
        return [
            DeadLetter(i.decode(), run.decode(), attempts, why.decode(), tuple(map(_failure, told.splitlines())))
            for i, run, attempts, why, told in letters
        ]

    async def replay(self, queue: str, job_id: str) -> bool:
        return bool(await self._server.op("replay", queue, job_id))

    async def discard(self, queue: str, job_id: str) -> bool:
        return bool(await self._server.op("discard", queue, job_id))

    async def cancel(self, run_id: str) -> int:
        return await self._server.op("cancel", run_id)

    async def close(self) -> None:
        await self._server.close()

    async def _opened(self, worker: str, taken: Sequence[tuple[bytes, bytes, bytes, bytes]]) -> list[Delivery]:
        """The deliveries; a damaged job goes to the dead letters, one of another version waits for whoever reads it."""
        deliveries: list[Delivery] = []
        bodies = await self._blobs.open([reference for *_, reference in taken])
        for (job_id, entry, attempt, _), body in zip(taken, bodies, strict=True):
            try:
                job = envelope.unpack(sound(body))
            except envelope.OtherSchema as error:
                log.warning("a job is left alone", extra={"request_id": job_id.decode(), "reason": str(error)})
                await self._server.op("leave", job_id, worker, entry, attempt)
                continue
            except DamagedBody as error:
                await self._server.op("fail", job_id, worker, entry, attempt, str(error), 0)
                continue
            deliveries.append(Delivery(job, worker, int(attempt), entry.decode()))
        return deliveries

    async def _ended(self, results: Sequence[tuple[bytes, bytes, bytes, bytes]]) -> list[Answer]:
        """The answers and dead letters among these jobs, in order."""
        references = [reference for _, state, reference, _ in results if state == b"answered"]
        bodies = dict(zip(references, await self._blobs.open(references), strict=True))
        answers: list[Answer] = []
        for job_id, state, reference, reason in results:
            if state == b"answered":
                answers.append(await self._answered(job_id.decode(), reference, bodies[reference]))
            elif state == b"dead":
                answers.append(Answer(job_id.decode(), None, reason.decode()))
        return answers

    async def _answered(self, job_id: str, reference: bytes, body: bytes | DamagedBody) -> Answer:
        """A stored answer. A damaged one is forgotten, so that asking again computes it anew."""
        try:
            return Answer(job_id, sound(body))
        except DamagedBody as error:
            await self._server.op("forget_answer", job_id, reference)
            return Answer(job_id, None, f"the stored answer was damaged, ask again: {error}")


def _parts(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), JOBS_A_CALL):
        yield items[start : start + JOBS_A_CALL]


def _failure(line: bytes) -> Failure:
    """A line that `tell` in stream.lua wrote."""
    at_ms, worker, reason = line.decode(errors="replace").split("\t", 2)
    return Failure(worker, reason, int(at_ms) / 1000)


def _handle(delivery: Delivery) -> tuple[str, str, str, int]:
    return delivery.job.id, delivery.worker, delivery.receipt, delivery.attempt
