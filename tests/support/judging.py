"""A judge's questions put to an engine without a teacher in between."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tutelage.engines import Engine
from tutelage.rewards.judging import Answer, Ask, Messages
from tutelage_client.errors import TutelageError
from tutelage_client.wire import GenerateRequest, Usage


def directly(engine: Engine) -> Ask:
    async def answered(question: Messages, max_tokens: int) -> tuple[Answer, Usage]:
        request = GenerateRequest(prompts=[question], max_tokens=max_tokens, temperature=0.0)
        try:
            ((answer,),), usage = await engine.generate(request)
        except TutelageError as error:
            return error, Usage()
        return answer, usage

    async def ask(questions: Sequence[Messages], max_tokens: int) -> tuple[list[Answer], Usage]:
        told = await asyncio.gather(*(answered(question, max_tokens) for question in questions))
        return [answer for answer, _ in told], sum((usage for _, usage in told), Usage())

    return ask
