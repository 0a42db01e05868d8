"""A question that a teacher gave up and that is put back to work: learned from where its step is still to be done,
refused as stale where it is done, once in either case."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from cluster import PROBE, Cluster, frozen
from tiny_run import ROLLOUTS

from tutelage.standalone.children import Child
from tutelage.trainer.exits import ExitCode
from tutelage_client.cli import commands
from tutelage_client.cli.parser import parser
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import DeadLetterView

pytestmark = pytest.mark.asyncio(loop_scope="session")
TEACHER = "moody"


@pytest_asyncio.fixture(loop_scope="session")
async def moody(cluster: Cluster) -> AsyncGenerator[Child]:
    """A teacher that fails at its first question, once and for good."""
    once = ["--max-deliveries", "1", "--lease-s", "60", "--max-batch-tokens", "1"]
    probe = [*PROBE, "none"]  # one call more, as a batch holds one question here
    teacher = cluster.teacher(TEACHER, *once, faults=[*probe, "error"], latency_s=0.05)
    await teacher.start()
    await cluster.registered(TEACHER)
    yield teacher
    await teacher.stop(grace_s=5)
    async with cluster.client() as client:
        await client.remove_teacher(TEACHER)


async def first_letter(cluster: Cluster, run_id: str) -> DeadLetterView:
    async with asyncio.timeout(60), cluster.client() as client:
        while not (letters := await client.dead_letters(run_id)):
            await asyncio.sleep(0.02)
    return letters[0]


async def tutelage(cluster: Cluster, *args: str) -> int:
    """The command line, in this process: a new one would start for longer than the run takes."""
    parsed = parser().parse_args([*args, "--coordinator", cluster.url])
    return await commands()[parsed.command](parsed)


async def test_an_answer_to_a_replayed_question_of_a_step_that_is_done_is_refused_as_stale(
    cluster: Cluster, moody: Child, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = await cluster.submit(teachers=[{"name": TEACHER}], optim={"steps": 30})
    training = asyncio.create_task(cluster.train(run_id))
    letter = await first_letter(cluster, run_id)
    assert (letter.teacher, letter.attempts, len(letter.history)) == (TEACHER, 1, 1)
    assert str(moody.pid) in letter.history[0].worker
    await cluster.until(run_id, lambda run: run.step >= 1)
    assert await tutelage(cluster, "queue", "dead", run_id) == 0
    listed = capsys.readouterr().out
    assert letter.job_id in listed
    assert letter.history[0].reason in listed
    assert await tutelage(cluster, "queue", "replay", run_id, letter.job_id) == 0
    assert capsys.readouterr().out == f"{letter.job_id} is back at work\n"
    with pytest.raises(ProblemResponse, match="has no dead letter"):
        await tutelage(cluster, "queue", "replay", run_id, letter.job_id)
    assert await training == ExitCode.DONE
    answer = cluster.raw.hget(f"tutelage:job:{letter.job_id}", "state")
    assert answer == b"answered", "the teacher did the work"
    found = await cluster.sound(run_id)
    assert [len(learned.left_out) for learned in found.learned] == [1, *[0] * 29]
    assert await tutelage(cluster, "runs", "check", run_id) == 0


async def test_an_answer_to_a_replayed_question_of_a_step_that_is_still_to_be_done_is_learned_from_once(
    cluster: Cluster, moody: Child
) -> None:
    run_id = await cluster.submit(teachers=[{"name": TEACHER}])
    training = asyncio.create_task(cluster.train(run_id))
    async with cluster.client() as client:
        letter = await first_letter(cluster, run_id)
        async with frozen(moody):  # the step cannot be done
            await client.pause(run_id)
            assert await training == ExitCode.DRAINED
            await client.replay_dead_letter(run_id, letter.job_id)
        await client.resume(run_id)
    assert await cluster.train(run_id) == ExitCode.DONE
    found = await cluster.sound(run_id)
    assert [len(learned.trained) for learned in found.learned] == [ROLLOUTS] * 6
