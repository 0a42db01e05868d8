"""Dead letters over HTTP: what is told of them, that each is settled once, and that the run's history says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.letters import Letters
from tutelage.coordinator.settings import Settings
from tutelage.queue import Job, MemoryQueue, Queue
from tutelage.serving import ServiceProblem
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse, ServiceUnreachable
from tutelage_client.wire import Outcome, TeacherInfo, sampler_queue
from tutelage_client.worker import WorkerClient

URL = "http://127.0.0.1"


@pytest.fixture
def queue() -> Queue:
    return MemoryQueue()


@pytest.fixture
async def client(settings: Settings, database: Database, queue: Queue) -> AsyncIterator[CoordinatorClient]:
    app = build_app(settings, database, queue)
    async with CoordinatorClient(URL, transport=httpx2.ASGITransport(app)) as client:
        yield client


@pytest.fixture
async def run_id(
    client: CoordinatorClient, taught: Callable[..., Any], teacher_info: Callable[..., TeacherInfo]
) -> str:
    """A run that asks the teacher `walker`."""
    await client.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    return (await client.submit(taught())).id


async def bury(queue: Queue, run_id: str, *names: str) -> None:
    """Let these questions of the run be given up after one delivery."""
    await queue.put([Job(name, "walker", run_id, run_id, 7, b"question") for name in names])
    for delivery in await queue.lease("walker", "worker-1", count=len(names), wait_s=0):
        await queue.fail(delivery, f"cannot score {delivery.job.id}", retry=False)


async def messages(client: CoordinatorClient, run_id: str) -> list[str]:
    return [event.message for event in (await client.event_page(run_id)).data if event.type == "teacher"]


async def test_a_runs_letters_are_listed_with_their_deliveries_and_no_others(
    client: CoordinatorClient, run_id: str, queue: Queue
) -> None:
    assert await client.dead_letters(run_id) == []
    await bury(queue, run_id, "a", "b")
    await bury(queue, "run-other", "c")
    first, second = await client.dead_letters(run_id)
    assert (first.job_id, first.teacher, first.attempts, first.reason) == ("a", "walker", 1, "cannot score a")
    assert [(each.worker, each.reason) for each in second.history] == [("worker-1", "cannot score b")]
    assert await messages(client, run_id) == []


async def test_texts_that_samplers_gave_up_are_letters_of_the_run(
    client: CoordinatorClient, taught: Callable[..., Any], teacher_info: Callable[..., TeacherInfo], queue: Queue
) -> None:
    await client.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    run_id = (await client.submit(taught(rollout={"sampler": "pool"}))).id
    await queue.put([Job("text", sampler_queue("pool"), run_id, run_id, 7, b"request")])
    [delivery] = await queue.lease(sampler_queue("pool"), "w", count=1, wait_s=0)
    await queue.fail(delivery, "the weights did not arrive", retry=False)
    [letter] = await client.dead_letters(run_id)
    assert (letter.job_id, letter.teacher, letter.reason) == ("text", "sampler/pool", "the weights did not arrive")
    await client.discard_dead_letter(run_id, "text")
    assert await client.dead_letters(run_id) == []


async def test_a_letter_is_put_back_to_work_once_and_the_history_says_so(
    client: CoordinatorClient, run_id: str, queue: Queue
) -> None:
    await bury(queue, run_id, "a")
    both = await asyncio.gather(*(client.replay_dead_letter(run_id, "a") for _ in range(2)), return_exceptions=True)
    refused = [each for each in both if isinstance(each, ProblemResponse)]
    assert [(each.status, each.code) for each in refused] == [(404, "dead_letter_not_found")]
    assert await client.dead_letters(run_id) == []
    (delivery,) = await queue.lease("walker", "worker-2", count=2, wait_s=0)
    assert (delivery.job.id, delivery.attempt) == ("a", 1)
    assert await messages(client, run_id) == ["dead letter a of teacher 'walker' was put back to work"]


async def test_a_discarded_letter_is_gone_and_the_history_says_so(
    client: CoordinatorClient, run_id: str, queue: Queue
) -> None:
    await bury(queue, run_id, "a", "b")
    assert (await client.discard_dead_letter(run_id, "a")).reason == "cannot score a"
    with pytest.raises(ProblemResponse, match="no dead letter 'a'"):
        await client.discard_dead_letter(run_id, "a")
    assert [letter.job_id for letter in await client.dead_letters(run_id)] == ["b"]
    assert await messages(client, run_id) == ["dead letter a of teacher 'walker' was discarded"]


async def test_nobody_reaches_the_letters_of_another_run(client: CoordinatorClient, run_id: str, queue: Queue) -> None:
    await bury(queue, "run-other", "c")
    for ask in (client.replay_dead_letter, client.discard_dead_letter):
        with pytest.raises(ProblemResponse, match="no dead letter 'c'"):
            await ask(run_id, "c")
    with pytest.raises(ProblemResponse, match="there is no run 'run-other'"):
        await client.dead_letters("run-other")
    assert len(await queue.dead_letters("walker")) == 1


async def test_of_a_run_that_has_ended_letters_can_only_be_discarded(
    client: CoordinatorClient, worker: WorkerClient, run_id: str, queue: Queue
) -> None:
    await bury(queue, run_id, "a")
    await worker.lease_run(run_id, "w")
    await worker.report_outcome(run_id, Outcome(epoch=1, result="failed"))
    with pytest.raises(ProblemResponse, match="discard the letter"):
        await client.replay_dead_letter(run_id, "a")
    await client.discard_dead_letter(run_id, "a")


async def test_without_a_queue_and_while_it_is_away_it_is_said(
    client: CoordinatorClient, coordinator: CoordinatorClient, database: Database, run_id: str
) -> None:
    with pytest.raises(ProblemResponse, match="started without --redis-url"):
        await coordinator.dead_letters(run_id)

    class Away(MemoryQueue):
        async def dead_letters(self, queue: str) -> Any:
            raise ServiceUnreachable("redis://queue", "connection refused")

    with pytest.raises(ServiceProblem, match="connection refused") as away:
        await Letters(database, Away()).of(run_id)
    assert (away.value.status_code, away.value.code) == (503, "queue_unavailable")
