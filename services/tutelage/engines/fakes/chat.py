"""A hosted chat API in small: rate limits, refusals, cut texts, and a model that changes under its name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI

from tutelage.engines.fakes.toy import Body, Json, ToyServer, Trap
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Generation

THOUGHTS = 64
# What each trap refuses, in the words of those whose it is.
REFUSED: dict[Trap, tuple[Callable[[Json], Any], str]] = {
    "no_logprobs": (lambda body: body.get("logprobs"), "logprobs is not supported by this model"),
    "max_tokens": (lambda body: "max_completion_tokens" in body, "Extra inputs are not permitted"),
    "own_temperature": (
        lambda body: body.get("temperature", 1) != 1,
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) is supported.",
    ),
    "one_sampler": (
        lambda body: "temperature" in body and "top_p" in body,
        "`temperature` and `top_p` cannot both be specified for this model. Please use only one.",
    ),
    "no_n": (lambda body: "n" in body, "Multiple candidates is not enabled for this model"),
    "no_seed": (lambda body: "seed" in body, 'Unknown name "seed": Cannot find field.'),
    "thinks": (
        lambda body: _limit(body) < THOUGHTS,
        "Could not finish the message because max_tokens or model output limit was reached.",
    ),
}


def chat_app(toy: ToyServer) -> FastAPI:
    app = toy.app("chat")

    @app.post("/chat/completions")
    async def complete(body: Body) -> Json:
        body = taken(toy, body)
        if "hangs" in toy.traps and toy.calls > 1:
            await asyncio.Event().wait()
        prompt = " ".join(message["content"] for message in body["messages"])
        texts = await toy.write(prompt, body)
        reply = completion(toy, texts)
        if body.get("logprobs"):
            for choice, one in zip(reply["choices"], texts, strict=True):
                content = [{"token": "", "logprob": lp, "top_logprobs": []} for lp in one.logprobs or ()]
                choice["logprobs"] = {"content": content}
        return reply

    return app


def taken(toy: ToyServer, body: Json) -> Json:
    """The request as a completions server knows it.

    Raises:
        InvalidInput: by one of the traps it has parameters that are refused.
    """
    for trap, (is_refused, said) in REFUSED.items():
        if trap in toy.traps and is_refused(body):
            raise InvalidInput(said)
    asked = body | {"max_tokens": _limit(body)}
    return asked | {"n": 1} if "ignores_n" in toy.traps else asked


def _limit(body: Json) -> int:
    return body.get("max_completion_tokens") or body["max_tokens"]


def completion(toy: ToyServer, texts: Sequence[Generation], read: int = 7) -> Json:
    """The body that answers with these texts. read: tokens of the question"""
    written = sum(len(one.token_ids or ()) for one in texts)
    return {
        "id": "chat",
        "object": "chat.completion",
        "created": 0,
        "model": f"{toy.name}-2026-{'11' if toy.changed else '01'}-01",
        "system_fingerprint": "fp_1",
        "choices": [_choice(toy, i, one.text, one.finish_reason) for i, one in enumerate(texts)],
        "usage": toy.bill(read, written),
    }


def _choice(toy: ToyServer, i: int, text: str, reason: str) -> Json:
    message: Json = {"role": "assistant", "content": text}
    if "refuses" in toy.traps:
        return {"index": i, "message": message | {"content": None, "refusal": "no"}, "finish_reason": "content_filter"}
    for trap, end in (("truncates", "length"), ("calls_tools", "tool_calls")):
        reason = end if trap in toy.traps else reason
    return {"index": i, "message": message, "finish_reason": reason}
