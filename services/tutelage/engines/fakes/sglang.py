"""SGLang in small: `/generate` with input log-probs. It keeps prompts, up to `logprob_start_len`."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from tutelage.engines.fakes.toy import Body, Json, ToyServer, error
from tutelage_client.wire import Generation


def sglang_app(toy: ToyServer) -> FastAPI:
    app = toy.app("SGLang")
    longest = toy.options.max_length
    seen: list[list[int]] = []

    @app.get("/server_info")
    async def server_info() -> Json:
        return {"version": "0.5.23"}

    @app.get("/v1/models")
    async def models() -> Json:
        return toy.models(root=f"org/{toy.name}", max_model_len=longest + 1)

    @app.post("/tokenize")
    async def tokenize(body: Body) -> Any:
        if "no_tokenize" in toy.traps:
            return error(404, "Not Found")
        return {"tokens": toy.tokenize(body["prompt"])}

    @app.post("/generate")
    async def generate(body: Body) -> Any:
        ids = toy.check_ids(body["input_ids"], longest)
        asked = body["sampling_params"]
        if asked["max_new_tokens"] > 0:
            more = {"max_tokens": asked["max_new_tokens"], "seed": asked.get("sampling_seed")}
            return _texts(await toy.write(ids, asked | more))
        start = -1 if "output_only" in toy.traps else body.get("logprob_start_len", -1)
        meta = _input_logprobs(toy, ids, start, body) if start >= 0 else {"input_token_logprobs": []}
        cached = max((_shared(ids, other, start) for other in seen), default=0)
        seen.append(ids)
        return {"text": "", "output_ids": [], "meta_info": meta | {"cached_tokens": cached, "prompt_tokens": len(ids)}}

    return app


def _input_logprobs(toy: ToyServer, ids: list[int], start: int, body: Json) -> Json:
    """Each list begins with an entry for token `start` that has no score; ids are one list for the whole request."""
    rows = list(zip(toy.logprobs(ids)[start:], ids[start + 1 :], strict=False))
    if "row_short" in toy.traps:
        rows = rows[:-1]
    spell = toy.spell if body.get("return_text_in_logprobs") else lambda _: None
    own = [[_json(lp[t]), t, spell(t)] for lp, t in rows]
    meta: Json = {"input_token_logprobs": [[None, ids[start], spell(ids[start])], *own]}
    if k := body.get("top_logprobs_num"):
        meta["input_top_logprobs"] = [None, *(_entries(lp, np.argsort(-lp, kind="stable")[:k]) for lp, _ in rows)]
    if (named := body.get("token_ids_logprob")) is not None:
        meta["input_token_ids_logprobs"] = [None, *(_entries(lp, np.array(named, dtype=int)) for lp, _ in rows)]
    return meta


def _entries(logprob_V: NDArray[np.float64], ids: NDArray[Any]) -> list[list[Any]]:
    return [[_json(logprob_V[i]), int(i), None] for i in ids]


def _json(value: Any) -> float:
    return max(float(value), -9999.0)


def _texts(generations: list[Generation]) -> Any:
    """One object, or a list where several were asked for."""
    texts = [
        {
            "text": one.text,
            "output_ids": one.token_ids,
            "meta_info": {
                "finish_reason": {"type": one.finish_reason},
                "output_token_logprobs": [
                    [lp, i, None] for lp, i in zip(one.logprobs or (), one.token_ids or (), strict=True)
                ],
            },
        }
        for one in generations
    ]
    return texts[0] if len(texts) == 1 else texts


def _shared(ids: list[int], other: list[int], most: int) -> int:
    """Length of the common beginning, up to where log-probs are wanted."""
    same = [a == b for a, b in zip(ids[: max(most, 0)], other, strict=False)]
    return same.index(False) if False in same else len(same)
