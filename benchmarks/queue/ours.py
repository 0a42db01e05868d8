"""Our client of the queue on command (see `benchmarks.commands`): score requests for the teacher `toy`.

python -m benchmarks.queue.ours REDIS_URL COMPLETIONS_A_JOB
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import uuid
from collections.abc import Iterator, Sequence

import numpy as np

from benchmarks.commands import obey
from tutelage.queue import Answer, Job, Queue, open_queue
from tutelage_client.wire import ScoreReply, ScoreRequest, Signal, decode_reply, encode_request

PROMPT = COMPLETION = VOCABULARY = 32


class Client:
    """Questions are made before the clock runs; their bytes are made, and answers read and checked, while it does.

    tokens: of a prompt, and of a completion
    """

    def __init__(self, queue: Queue, completions: int, tokens: int = PROMPT) -> None:
        self._queue = queue
        self._rows = [tokens] * completions
        self._run = uuid.uuid4().hex
        self._numbers = itertools.count()
        self._requests = itertools.cycle([asked(seed, completions, tokens) for seed in range(256)])
        self._tokens = tokens * (1 + completions)
        self._cursor = "0"

    async def ask(self, count: int) -> None:
        putting = asyncio.create_task(self._queue.put(list(self._jobs(count))))
        left = count
        while left:
            answers, self._cursor = await self._queue.answers(self._run, after=self._cursor, wait_s=10.0)
            check(answers, self._rows)
            left -= len(answers)
        await putting

    def _jobs(self, count: int) -> Iterator[Job]:
        for number, request in zip(itertools.islice(self._numbers, count), self._requests, strict=False):
            yield Job(f"{self._run}-{number}", "toy", self._run, self._run, self._tokens, encode_request(request))


def asked(seed: int, completions: int, tokens: int = PROMPT) -> ScoreRequest:
    ids = np.random.default_rng(seed).integers(1, VOCABULARY, (completions + 1, tokens))
    group = {"prompt_ids": ids[0], "completions": [{"token_ids": row} for row in ids[1:]]}
    return ScoreRequest.model_validate({"sequences": [group], "signals": [Signal.SAMPLED]})


def check(answers: Sequence[Answer], rows: Sequence[int]) -> list[ScoreReply]:
    """The replies. rows: of the blocks of each. Raises: ValueError: one of them is not whole."""
    if not answers:
        raise ValueError("no answer came within ten seconds")
    replies = [decode_reply(answer.payload or b"") for answer in answers]
    if any([block.rows for block in reply.scores] != rows for reply in replies):
        raise ValueError("an answer does not hold a score of every token")
    return replies


async def main(url: str, completions: int) -> None:
    queue = open_queue(url)
    try:
        await obey(Client(queue, completions).ask)
    finally:
        await queue.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
