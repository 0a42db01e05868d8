"""A hosted chat model in small with a real model behind it: it writes, and it judges by its own probabilities.

What is asked with a fenced answer is a judge's question. Its mark for the answer is 9 times the geometric mean of the
probabilities that the model gives to the answer's tokens and to its end, rounded. The mark leaves as one line of text
and nothing else does: log-probabilities are refused. It bills the tokens that the model reads and writes: of a judge's
question the prompt and the answer, not the words around them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fastapi import FastAPI

from tutelage.engines.base import Engine
from tutelage.engines.fakes.chat import completion, taken
from tutelage.engines.fakes.judge import FENCED
from tutelage.engines.fakes.toy import Body, Json, ToyServer
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import GenerateRequest, Generation, ScoreGroup, Signal

Asked = TypeVar("Asked")
Told = TypeVar("Told")
BEST = 9


class Together(Generic[Asked, Told]):
    """Questions that come while the model is at work are answered as one batch after it. busy: held at work"""

    def __init__(self, answer: Callable[[list[Asked]], Awaitable[Sequence[Told]]], busy: asyncio.Lock) -> None:
        self._answer = answer
        self._busy = busy
        self._waiting: list[tuple[Asked, asyncio.Future[Told]]] = []

    async def ask(self, asked: Asked) -> Told:
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        async with self._busy:
            if not future.done():
                await self._answer_all()
        return await future

    async def _answer_all(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            told = await self._answer([asked for asked, _ in batch])
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), each in zip(batch, told, strict=True):
            if not future.cancelled():
                future.set_result(each)


@dataclass(frozen=True)
class Model:
    """An engine that is asked one batch at a time. It needs a tokenizer and an end token."""

    engine: Engine

    def encode(self, text: str) -> list[int]:
        assert self.engine.tokenizer is not None
        return self.engine.tokenizer.encode(text) if text else []

    def fit(self, tokens: int) -> None:
        """Raises: InvalidInput: more than the model reads."""
        longest = self.engine.capabilities.max_length
        if tokens > longest:
            raise InvalidInput(f"this model's maximum context length is {longest} tokens, asked were {tokens}")

    def answered(self, prompt: str, answer: str) -> ScoreGroup:
        """The answer and its end as what is scored behind the prompt."""
        prompt_ids = self.encode(prompt)
        ids = [*self.encode(prompt + answer)[len(prompt_ids) :], self.engine.capabilities.eos_ids[0]]
        self.fit(len(prompt_ids) + len(ids))
        return ScoreGroup.model_validate({"prompt_ids": prompt_ids, "completions": [{"token_ids": ids}]})

    async def marks(self, groups: list[ScoreGroup]) -> list[int]:
        blocks, _ = await self.engine.score(groups, frozenset({Signal.SAMPLED}), None)
        return [mark(block.sampled_logprob.tolist()) for block in blocks if block.sampled_logprob is not None]

    async def texts(self, requests: list[GenerateRequest]) -> list[list[Generation]]:
        """Requests that differ in prompt and seed alone are written as one batch, with the seed of the first."""
        alike: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            settings = request.model_dump_json(exclude={"prompts", "seed"})
            alike.setdefault(settings, []).append(i)
        written: dict[int, list[Generation]] = {}
        for places in alike.values():
            prompts = [prompt for i in places for prompt in requests[i].prompts]
            generations, _ = await self.engine.generate(requests[places[0]].model_copy(update={"prompts": prompts}))
            written |= zip(places, generations, strict=True)
        return [written[i] for i in range(len(requests))]


def hosted_app(toy: ToyServer, engine: Engine) -> FastAPI:
    """The API. toy: its name and its traps; engine: the model"""
    app = toy.app("chat")
    model, busy = Model(engine), asyncio.Lock()
    judge, writer = Together(model.marks, busy), Together(model.texts, busy)

    @app.post("/chat/completions")
    async def complete(body: Body) -> Json:
        if body.get("logprobs"):
            raise InvalidInput("logprobs is not supported by this model")
        said = "\n".join(message["content"] for message in body["messages"])
        data = dict(FENCED.findall(said))
        if "A" in data:
            raise InvalidInput("this model judges one answer at a time")
        if "answer" in data:
            group = model.answered(data["prompt"], data["answer"])
            verdict = f"Score: {await judge.ask(group)}"
            text = Generation(text=verdict, token_ids=model.encode(verdict), finish_reason="stop")
            return completion(toy, [text], read=group.longest)
        prompt_ids = model.encode(said)
        request = toy.request(prompt_ids, taken(toy, body))
        model.fit(len(prompt_ids) + request.max_tokens)
        return completion(toy, await writer.ask(request), read=len(prompt_ids))

    return app


def mark(logprobs: Sequence[float]) -> int:
    """Of an answer with these log-probabilities, 0 to 9."""
    return round(BEST * math.exp(math.fsum(logprobs) / len(logprobs)))
