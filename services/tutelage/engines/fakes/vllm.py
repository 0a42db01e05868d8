"""vLLM in small: its OpenAI routes with `prompt_logprobs`, and `/inference/v1/generate` as of 0.32."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from tutelage.engines.fakes.completions import written
from tutelage.engines.fakes.toy import Body, Json, ToyServer, error
from tutelage_client.errors import InvalidInput

STEP_S = 0.02  # that the model takes, where it matters who is scored at the same time


class EngineDead(Exception):
    """It ran out of memory, and stays so."""


class Memory:
    """What is left for logits. It is enough without the trap; with it, for the longest sequence and no more."""

    def __init__(self, toy: ToyServer) -> None:
        self._toy = toy
        self._tokens = 0
        self._is_dead = False

    @asynccontextmanager
    async def taken(self, tokens: int) -> AsyncGenerator[None]:
        """The time that a call takes, and the memory for the tokens that it has scored."""
        if "out_of_memory" not in self._toy.traps:
            yield
            return
        self._tokens += tokens
        self._is_dead = self._is_dead or self._tokens > self._toy.options.max_length
        try:
            await asyncio.sleep(STEP_S)
            if self._is_dead:
                raise EngineDead
            yield
        finally:
            self._tokens -= tokens


def vllm_app(toy: ToyServer) -> FastAPI:
    """The routes of a server with `--enable-scale-out --max-logprobs -1`, unless traps say otherwise."""
    app = toy.app("vLLM")
    app.add_exception_handler(EngineDead, _dead)
    memory = Memory(toy)
    longest = toy.options.max_length

    @app.get("/version")
    async def version() -> Json:
        return {"version": "0.31.0" if "flat_ids" in toy.traps else "0.32.0"}

    @app.get("/v1/models")
    async def models() -> Json:
        return toy.models(root=f"org/{toy.name}", max_model_len=longest + 1)

    @app.post("/tokenize")
    async def tokenize(body: Body) -> Any:
        if "no_tokenize" in toy.traps:
            return error(404, "Not Found")
        ids = toy.tokenize(body["prompt"])
        return {"count": len(ids), "max_model_len": longest + 1, "tokens": ids}

    @app.post("/v1/completions")
    async def completions(body: Body) -> Any:
        if body["model"] != toy.name:
            return error(404, f"The model `{body['model']}` does not exist.", "model")
        room = _room(body.get("max_tokens", 16), body["prompt"], longest)
        ids = toy.check_ids(body["prompt"], longest)
        asked = body.get("prompt_logprobs")
        async with memory.taken(0 if asked is None else len(ids)):
            rows = _prompt_logprobs(toy, ids, asked)
            choices = await _choices(toy, ids, body | {"max_tokens": room})
        for choice in choices:
            choice["prompt_logprobs"] = rows
        return {"id": "cmpl", "object": "text_completion", "model": toy.name, "choices": choices}

    @app.post("/inference/v1/generate")
    async def generate(body: Body) -> Any:
        if "scale_out_off" in toy.traps:
            return error(403, "this endpoint needs --enable-scale-out")
        asked = body["sampling_params"]
        ids = toy.check_ids(body["token_ids"], longest)
        _room(asked.get("max_tokens", longest), ids, longest)
        async with memory.taken(len(ids)):
            scores = None if "ids_ignored" in toy.traps else _id_logprobs(toy, ids, asked)
            return {
                "choices": [{"index": 0, "token_ids": [0], "finish_reason": "length"}],
                "prompt_logprobs": _prompt_logprobs(toy, ids, asked.get("prompt_logprobs")),
                "prompt_token_id_logprobs": None if "null_scores" in toy.traps else scores,
            }

    return app


async def _dead(_: Request, __: Exception) -> JSONResponse:
    return error(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")


async def _choices(toy: ToyServer, ids: list[int], body: Json) -> list[Json]:
    """What is written, with its ids and log-probs where they were asked for."""
    defaults = {"temperature": 0.0} if "defaults" in toy.traps and "top_k" not in body else {}
    choices = written(await toy.write(ids, body, **defaults), by_id=False)
    unasked = [] if body.get("return_token_ids") else ["token_ids"]
    unasked += ["logprobs"] if body.get("logprobs") is None else []
    return [choice | dict.fromkeys(unasked) for choice in choices]


def _room(wanted: int, ids: list[int], longest: int) -> int:
    """The tokens that may be written: as many as wanted, and as the context has room for."""
    room = min(wanted, longest + 1 - len(ids))
    if room < 1:
        raise InvalidInput(f"max_tokens must be at least 1, got {room}", "max_tokens")
    return room


def _cap(toy: ToyServer) -> int:
    return 20 if "low_cap" in toy.traps else toy.options.vocabulary_size


def _prompt_logprobs(toy: ToyServer, ids: list[int], k: int | None) -> list[Json | None] | None:
    if k is None:
        return None
    if k > _cap(toy):
        raise InvalidInput(
            f"Requested prompt logprobs of {k}, which is greater than max allowed: {_cap(toy)}", "prompt_logprobs"
        )
    return toy.prompt_logprobs(ids, k)


def _id_logprobs(toy: ToyServer, ids: list[int], asked: Json) -> str | None:
    """Scores of the ids of each row, base64 of .npy float32 [rows, K]; -1 pads and gives -inf."""
    named = asked.get("prompt_logprob_token_ids")
    if named is None:
        return None
    if "v1_runner" in toy.traps:
        raise InvalidInput("prompt_logprob_token_ids requires the V2 model runner", "prompt_logprob_token_ids")
    start = asked.get("prompt_logprob_start", 0)
    rows = max(len(ids) - 1 - start, 0)
    if "flat_ids" in toy.traps or len(named) != rows:
        raise InvalidInput(
            f"prompt_logprob_token_ids must have {rows} rows, not {len(named)}", "prompt_logprob_token_ids"
        )
    width = max(map(len, named))
    if width > _cap(toy):
        raise InvalidInput(f"{width} ids a row is greater than max allowed: {_cap(toy)}")
    padded = np.array([[*row, *[-1] * (width - len(row))] for row in named])
    if padded.max() >= toy.options.vocabulary_size:
        raise InvalidInput("prompt_logprob_token_ids contain out-of-vocab token ids", "prompt_logprob_token_ids")
    scores = np.take_along_axis(toy.logprobs(ids)[start : start + rows], np.maximum(padded, 0), 1)
    return _npy(toy, np.where(padded >= 0, scores, -np.inf).astype(np.float32))


def _npy(toy: ToyServer, scores: NDArray[Any]) -> str:
    if "row_short" in toy.traps:
        scores = scores[:-1]
    if "dtype" in toy.traps:
        scores = scores.astype(np.float16)
    file = io.BytesIO()
    np.save(file, scores)
    content = file.getvalue()
    if "huge_header" in toy.traps:
        shape = str(scores.shape).encode()
        claim = b"(999999999, 999999)"
        content = content.replace(shape + b", }" + b" " * (len(claim) - len(shape)), claim + b", }", 1)
    return base64.b64encode(content).decode()
