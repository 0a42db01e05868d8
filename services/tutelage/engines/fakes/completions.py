"""An OpenAI-compatible completions server in small: `echo` with `logprobs`, and on request vLLM's extension."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from fastapi import FastAPI

from tutelage.engines.fakes.toy import Body, Json, ToyServer
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Generation

MAX_LOGPROBS = 5


def completions_app(toy: ToyServer) -> FastAPI:
    """It takes token ids as a prompt and gives at most 5 log-probs a token."""
    app = toy.app("completions")

    @app.get("/models")
    async def models() -> Json:
        return toy.models(max_model_len=toy.options.max_length + 1)

    @app.post("/completions")
    async def completions(body: Body) -> Json:
        asked = max(body.get("logprobs") or 0, body.get("prompt_logprobs") or 0)
        if asked > MAX_LOGPROBS and "few_entries" not in toy.traps:
            raise InvalidInput(f"logprobs is {asked}, at most {MAX_LOGPROBS} go")
        ids = toy.check_ids(body["prompt"], toy.options.max_length)
        by_id = "texts" not in toy.traps
        choices = written(await toy.write(ids, body), by_id=by_id)
        usage = toy.bill(len(ids), sum(len(choice["token_ids"]) for choice in choices))
        if body.get("echo") and "echo_ignored" not in toy.traps:
            for choice in choices:
                choice["logprobs"] = _echoed(toy, ids, min(body["logprobs"], MAX_LOGPROBS), choice["logprobs"])
        if body.get("prompt_logprobs") is not None and "no_prompt_logprobs" not in toy.traps:
            choices[0]["prompt_logprobs"] = toy.prompt_logprobs(ids, min(body["prompt_logprobs"], MAX_LOGPROBS))
        name = "toy-2" if toy.changed else body["model"]
        shared = {"id": "cmpl", "object": "text_completion", "created": 0, "usage": usage}
        return shared | {"model": name, "choices": choices}

    return app


def written(generations: Sequence[Generation], *, by_id: bool) -> list[Json]:
    """Continuations as choices."""
    return [
        {
            "index": i,
            "text": one.text,
            "finish_reason": one.finish_reason,
            "token_ids": one.token_ids,
            "logprobs": {
                "tokens": [_name(token, by_id) for token in one.token_ids or ()],
                "token_logprobs": one.logprobs,
                "top_logprobs": [
                    {_name(t, by_id): lp} for t, lp in zip(one.token_ids or (), one.logprobs or (), strict=True)
                ],
                "text_offset": [],
            },
        }
        for i, one in enumerate(generations)
    ]


def _echoed(toy: ToyServer, ids: list[int], k: int, after: Json) -> Json:
    """The prompt's tokens before the written ones. The first has no log-prob."""
    by_id = "texts" not in toy.traps
    tokens = [_name(ids[0], by_id)]
    own: list[float | None] = [None]
    best: list[Json | None] = [None]
    for logprob_V, token in zip(toy.logprobs(ids), ids[1:], strict=False):
        order = np.argsort(-logprob_V, kind="stable")[:k].tolist()
        tokens.append(_name(token, by_id))
        own.append(max(float(logprob_V[token]), -9999.0))
        best.append({_name(i, by_id): max(float(logprob_V[i]), -9999.0) for i in [*order, token]})
    echoed = {"tokens": tokens, "token_logprobs": own, "top_logprobs": best}
    if "row_short" in toy.traps or ("lapses" in toy.traps and toy.answers % 2 == 0):
        return {name: column[:-1] for name, column in echoed.items()}
    return {name: [*column, *after[name]] for name, column in echoed.items()}


def _name(token: int, by_id: bool) -> str:
    return f"token_id:{token}" if by_id else f"t{token}"
