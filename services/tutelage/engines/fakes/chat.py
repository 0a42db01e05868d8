"""A hosted chat API in small: rate limits, refusals, cut texts, and a model that changes under its name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import FastAPI

from tutelage.engines.fakes.toy import Body, Json, ToyServer
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Generation


def chat_app(toy: ToyServer) -> FastAPI:
    app = toy.app("chat")

    @app.post("/chat/completions")
    async def complete(body: Body) -> Json:
        if body.get("logprobs") and "no_logprobs" in toy.traps:
            raise InvalidInput("logprobs is not supported by this model")
        if "hangs" in toy.traps and toy.calls > 1:
            await asyncio.Event().wait()
        prompt = " ".join(message["content"] for message in body["messages"])
        texts = await toy.write(prompt, body, max_tokens=body["max_completion_tokens"])
        reply = completion(toy, texts)
        if body.get("logprobs"):
            for choice, one in zip(reply["choices"], texts, strict=True):
                content = [{"token": "", "logprob": lp, "top_logprobs": []} for lp in one.logprobs or ()]
                choice["logprobs"] = {"content": content}
        return reply

    return app


def completion(toy: ToyServer, texts: Sequence[Generation], read: int = 7) -> Json:
    """The body that answers with these texts. read: tokens of the question"""
    written = sum(len(one.token_ids or ()) for one in texts)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return {
        "id": "chat",
        "object": "chat.completion",
        "created": 0,
        "model": f"{toy.name}-2026-{'11' if toy.changed else '01'}-01",
        "system_fingerprint": "fp_1",
        "choices": [_choice(toy, i, one.text, one.finish_reason) for i, one in enumerate(texts)],
        "usage": None if "no_usage" in toy.traps else usage,
    }


def _choice(toy: ToyServer, i: int, text: str, reason: str) -> Json:
    message: Json = {"role": "assistant", "content": text}
    if "refuses" in toy.traps:
        return {"index": i, "message": message | {"content": None, "refusal": "no"}, "finish_reason": "content_filter"}
    for trap, end in (("truncates", "length"), ("calls_tools", "tool_calls")):
        reason = end if trap in toy.traps else reason
    return {"index": i, "message": message, "finish_reason": reason}
