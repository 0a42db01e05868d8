"""A sampler at its queue: what it does with texts that it can write, and with those that it cannot."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from students_elsewhere import published, sampling, text_of
from tiny_run import tiny_spec

from tutelage.engines.snapshots import Ended
from tutelage.engines.snapshots.local import LocalStudent
from tutelage.engines.upstream.failures import UpstreamAway
from tutelage.queue import Answer, Job, MemoryQueue, Put, QueueLimits
from tutelage_client.wire import SampleReply, SampleRequest, SnapshotRef, sampler_queue

QUEUE = sampler_queue("pool")
DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("student")
    tiny_spec(folder)
    return folder / "student"


@pytest.fixture
def snapshot(student: Path, tmp_path: Path) -> SnapshotRef:
    return published(student, tmp_path, version=3)


async def asked(queue: MemoryQueue, *requests: SampleRequest, run_id: str = "run-1") -> None:
    jobs = [
        Job(f"{run_id}-{n}", QUEUE, run_id, run_id, 8, request.model_dump_json().encode())
        for n, request in enumerate(requests)
    ]
    assert await queue.put(jobs) == [Put.ADDED] * len(jobs)


async def ended(queue: MemoryQueue, count: int, run_id: str = "run-1") -> list[Answer]:
    answers: list[Answer] = []
    cursor = "0"
    async with asyncio.timeout(DEADLINE_S):
        while len(answers) < count:
            new, cursor = await queue.answers(run_id, after=cursor, wait_s=1.0)
            answers += new
    return sorted(answers, key=lambda answer: answer.job_id)


def replies(answers: Sequence[Answer]) -> list[SampleReply]:
    return [SampleReply.model_validate_json(answer.payload or b"") for answer in answers]


async def test_each_text_is_answered_with_its_version_and_log_probs(snapshot: SnapshotRef) -> None:
    queue = MemoryQueue()
    await asked(queue, *(text_of(snapshot, place, places=3) for place in range(3)))
    async with sampling(queue):
        texts = [reply.text for reply in replies(await ended(queue, 3))]
    assert all(text is not None and text.policy_version == 3 for text in texts)
    assert len({tuple(text.token_ids.tolist()) for text in texts if text is not None}) == 3


async def test_a_newer_snapshot_is_loaded_before_text_of_it_is_written(student: Path, tmp_path: Path) -> None:
    older, newer = published(student, tmp_path, version=1), published(student, tmp_path, version=2, shift=0.5)
    queue = MemoryQueue()
    await asked(queue, *(text_of(ref, place, places=4) for place, ref in enumerate((older, newer, older, newer))))
    async with sampling(queue):
        versions = [reply.text and reply.text.policy_version for reply in replies(await ended(queue, 4))]
    assert versions == [1, 2, 1, 2]


async def test_text_of_a_snapshot_that_is_gone_is_ended_and_wanted_by_nobody(snapshot: SnapshotRef) -> None:
    shutil.rmtree(snapshot.path)
    queue = MemoryQueue()
    await asked(queue, text_of(snapshot, 0))
    async with sampling(queue):
        assert replies(await ended(queue, 1)) == [SampleReply(text=None)]
    assert (await queue.depth(QUEUE)).dead == 0


async def test_weights_that_are_not_the_published_ones_write_nothing_and_the_reason_is_told(
    snapshot: SnapshotRef,
) -> None:
    """Tried three times, with pauses in which another sampler may take it, then given up."""
    weights = Path(snapshot.path) / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    queue = MemoryQueue(QueueLimits(max_deliveries=2))
    await asked(queue, text_of(snapshot, 0))
    async with sampling(queue):
        (answer,) = await ended(queue, 1)
    assert answer.payload is None
    assert answer.reason is not None and "is not the file that was published" in answer.reason
    [letter] = await queue.dead_letters(QUEUE)
    assert letter.attempts == 2


async def test_a_job_that_is_none_goes_to_the_dead_letters_at_once(snapshot: SnapshotRef) -> None:
    queue = MemoryQueue()
    broken = json.loads(text_of(snapshot, 0).model_dump_json()) | {"place": 9}
    await queue.put([Job("broken", QUEUE, "run-1", "run-1", 8, json.dumps(broken).encode())])
    await asked(queue, text_of(snapshot, 0))
    async with sampling(queue):
        sound, bad = sorted(await ended(queue, 2), key=lambda answer: answer.payload is None)
    assert replies([sound])[0].text is not None
    assert bad.reason == "the job cannot be read: 1 errors in it"


class Slow:
    """A model that writes one text and then never ends; away: it cannot be reached the first time."""

    def __init__(self, *, away: bool = False) -> None:
        self.inner = LocalStudent("cpu")
        self.away = away
        self.stuck = asyncio.Event()

    async def load(self, ref: SnapshotRef) -> None:
        if self.away:
            self.away = False
            raise UpstreamAway("nobody answers")
        await self.inner.load(ref)

    async def write(self, requests: Sequence[SampleRequest]) -> AsyncGenerator[Ended]:
        async for first in self.inner.write(requests[:1]):
            yield first
        if len(requests) > 1:
            self.stuck.set()
            await asyncio.Event().wait()

    async def close(self) -> None:
        await self.inner.close()


async def test_told_to_stop_it_hands_back_what_it_cannot_finish_and_another_writes_it(snapshot: SnapshotRef) -> None:
    queue, slow = MemoryQueue(), Slow()
    await asked(queue, *(text_of(snapshot, place, places=3) for place in range(3)))
    async with sampling(queue, slow):
        await asyncio.wait_for(slow.stuck.wait(), DEADLINE_S)
    depth = await queue.depth(QUEUE)
    assert (depth.waiting, depth.leased) == (2, 0)
    async with sampling(queue):
        assert all(reply.text is not None for reply in replies(await ended(queue, 3)))


async def test_a_text_that_takes_longer_than_a_lease_stays_in_hand(snapshot: SnapshotRef) -> None:
    queue, slow = MemoryQueue(QueueLimits(lease_s=0.3)), Slow()
    await asked(queue, *(text_of(snapshot, place, places=2) for place in range(2)))
    async with sampling(queue, slow, lease_s=0.3):
        await asyncio.wait_for(slow.stuck.wait(), DEADLINE_S)
        for _ in range(4):
            assert await queue.lease(QUEUE, "other", count=1, wait_s=0.2) == []


async def test_while_its_server_is_away_texts_are_handed_back_and_no_delivery_counts(snapshot: SnapshotRef) -> None:
    queue = MemoryQueue(QueueLimits(max_deliveries=1))
    await asked(queue, text_of(snapshot, 0))
    async with sampling(queue, Slow(away=True)):
        assert replies(await ended(queue, 1))[0].text is not None


def test_what_is_asked_is_checked(snapshot: SnapshotRef) -> None:
    whole: dict[str, Any] = text_of(snapshot, 0).model_dump()
    for change, said in (({"prompt_ids": []}, "no tokens"), ({"place": 1}, "beyond"), ({"top_p": 0}, "greater than 0")):
        with pytest.raises(ValueError, match=said):
            SampleRequest.model_validate(whole | change)
