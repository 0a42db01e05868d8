"""The pieces of the queue's benchmarks that could be wrong: who answers, what is checked, how rates become ratios."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.processes import obeying, python, valkey, working
from benchmarks.queue import Side, Size, block_ms, bodies, cell
from benchmarks.queue.ours import Client, asked, check
from benchmarks.replicas import FORWARD, TOKEN_S
from benchmarks.replicas import cell as replicas_cell

from tutelage.engines import FakeOptions
from tutelage.engines.checks import score_usage
from tutelage.engines.fake import FakeEngine
from tutelage.queue import Answer, MemoryQueue
from tutelage_client.wire import ScoreReply, Signal, encode_reply, encode_request


@pytest.mark.parametrize("module", ["benchmarks.queue.alone", "benchmarks.queue.raw"])
def test_a_side_without_a_teacher_answers_every_question_with_as_many_bytes(tmp_path: Path, module: str) -> None:
    lengths = [str(length) for length in bodies()]
    assert bodies()[0] == len(encode_request(asked(0, 1)))
    with ExitStack() as stack:
        url = stack.enter_context(valkey(tmp_path))
        worker, client = (python(module, part, url, *lengths) for part in ("worker", "client"))
        stack.enter_context(working(worker, tmp_path / "worker.log"))
        tell = stack.enter_context(obeying(client, tmp_path / "client.log"))
        peer = Side("by hand", "redis", tell)
        found = [cell("ours", Size(3, 2), at_once, tell, peer) for at_once in (False, True)]
        with pytest.raises(RuntimeError, match="ended"):
            tell({})
    for each in found:
        assert each.ours > 0
        assert each.theirs is not None and each.theirs > 0
        assert each.counted["questions"] == 3
    assert "p90_ms_ours" in found[0].counted
    assert found[1].counted["scores_per_s_ours"] == pytest.approx(1e3 / found[1].ours)


def test_a_block_of_single_questions_is_its_median_and_one_at_once_is_shared_out() -> None:
    assert block_ms({"ms": [1.0, 9.0, 2.0]}, 3) == 2.0
    assert block_ms({"ms": [30.0]}, 3) == 10.0


async def test_the_client_puts_each_question_once_and_reads_until_all_are_answered() -> None:
    queue = MemoryQueue()
    engine = FakeEngine(FakeOptions(), "toy")
    client = Client(queue, completions=2)
    asking = asyncio.create_task(client.ask(5))
    left = 5
    while left:
        deliveries = await queue.lease("toy", "worker", count=2, wait_s=5)
        for delivery in deliveries:
            blocks, usage = await engine.score(asked(0, 2).groups(), frozenset({Signal.SAMPLED}), None)
            reply = ScoreReply(scores=tuple(blocks), provenance=engine.provenance, usage=usage)
            await queue.answer([(delivery, encode_reply(reply))])
        left -= len(deliveries)
    await asyncio.wait_for(asking, 5)
    assert (await queue.depth("toy")).waiting == 0


def test_an_answer_that_is_not_whole_ends_the_benchmark() -> None:
    with pytest.raises(ValueError, match="no answer"):
        check([], [32])
    with pytest.raises(ValueError, match="safetensors"):
        check([Answer("job", None, "given up")], [32])


def test_efficiency_is_the_rate_over_that_of_one_teacher_and_the_calibrated_wait_over_the_time() -> None:
    alone_s = 2 * FORWARD * TOKEN_S  # one teacher takes twice as long as its tokens alone
    found = replicas_cell("stream", teachers=4, questions=100, took_s=100 * alone_s / 4 / 0.9, alone_s=alone_s)
    assert found.counted["efficiency"] == pytest.approx(0.9)
    assert found.counted["of_the_wait"] == pytest.approx(0.45)


async def test_a_calibrated_teacher_waits_for_every_token_that_goes_through_it() -> None:
    groups = asked(0, 2).groups()
    tokens = score_usage(groups).forward_tokens
    engine = FakeEngine(FakeOptions(token_latency_s=0.001), "toy")
    clock = asyncio.get_running_loop().time
    began_s = clock()
    await engine.score(groups, frozenset({Signal.SAMPLED}), None)
    assert clock() - began_s >= 0.001 * tokens
