"""A vLLM server as a teacher (0.32 and later with every signal, older ones with what their top k covers).

Scores come from `/inference/v1/generate`: `prompt_logprob_token_ids` names ids for each row, the token itself in the
first column, and row i speaks of prompt token `prompt_logprob_start + i + 1`. Servers without it are asked for
`prompt_logprobs` on `/v1/completions`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tutelage.engines.options import UpstreamOptions
from tutelage.engines.upstream.asked import Answer, Asked, Ids, Logprobs, logprobs_of
from tutelage.engines.upstream.choices import read_choices
from tutelage.engines.upstream.dialect import Learned
from tutelage.engines.upstream.discovery import largest_taken, model_length, served_model
from tutelage.engines.upstream.failures import UpstreamRefused
from tutelage.engines.upstream.http import UpstreamHttp
from tutelage.engines.upstream.npy import read_npy
from tutelage.engines.upstream.prompt_logprobs import read_prompt_logprobs, read_spelling
from tutelage.engines.upstream.tab import Tab
from tutelage.engines.vllm_scores import UNCHANGED, TopK, score_by_ids, score_by_top_k
from tutelage_client.errors import BadScores
from tutelage_client.wire import GenerateRequest, Generation, Signal

PER_ROW_SINCE = (0, 32)


class Vllm:
    """The dialect of vLLM. An entry of the top k costs as much as `--max-logprobs` allows, candidates alike."""

    def __init__(self, http: UpstreamHttp, options: UpstreamOptions, vocabulary_size: int) -> None:
        self._http = http
        self._options = options
        self._vocabulary_size = vocabulary_size
        self._model = options.upstream_model or ""
        self._max_logprobs = 1
        self._per_row = False

    async def learn(self) -> Learned:
        version = str((await self._http.get("/version")).get("version"))
        card = served_model((await self._http.get("/v1/models")).get("data") or [], self._options.upstream_model)
        self._model = str(card["id"])
        most = min(self._options.max_top_k, self._vocabulary_size)
        self._max_logprobs = await largest_taken(self._take_top_k, most)
        lacking = await self._why_not_per_row(version)
        self._per_row = lacking is None
        return Learned(
            model=str(card.get("root") or self._model),
            version=version,
            max_top_k=self._max_logprobs,
            max_length=model_length(card, self._options.max_length),
            covers_candidates=self._per_row,
            facts={"candidates": "each has its score" if lacking is None else f"from the top k only: {lacking}"},
        )

    async def score(self, asked: Asked, _: Tab) -> Answer:
        if self._per_row:
            return await score_by_ids(asked, self._max_logprobs, self._of_ids)
        return await score_by_top_k(asked, self._max_logprobs, self._top_k)

    async def write(
        self, prompt_ids: Sequence[int], request: GenerateRequest, seed: int | None, _: Tab
    ) -> list[Generation]:
        body = UNCHANGED | {
            "model": self._model,
            "prompt": list(prompt_ids),
            "n": request.n,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": request.stop,
            "logprobs": 1,
            "return_token_ids": True,
        }
        answer = await self._http.post("/v1/completions", body if seed is None else body | {"seed": seed})
        return read_choices(answer.get("choices"), request)

    async def tokenize(self, text: str) -> list[int] | None:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        try:
            return (await self._http.post("/tokenize", body)).get("tokens")
        except UpstreamRefused as error:
            if error.status == 404:
                return None
            raise

    async def spell(self, token_ids: Sequence[int]) -> list[str | None]:
        asked = Asked([0, *token_ids], 1, frozenset({Signal.SAMPLED}))
        return read_spelling(await self._prompt_logprobs(asked, 0), asked)

    async def close(self) -> None:
        await self._http.close()

    async def _take_top_k(self, k: int) -> None:
        await self._top_k(Asked([0, 0], 1, frozenset({Signal.TOP_K}), k), k)

    async def _why_not_per_row(self, version: str) -> str | None:
        """None if the server scores ids of each row; tried, as versions alone do not tell."""
        known = re.match(r"(\d+)\.(\d+)", version)
        if known and (int(known[1]), int(known[2])) < PER_ROW_SINCE:
            return f"vLLM {version} is older than 0.32"
        asked = Asked([0, 0, 0], 1, frozenset({Signal.SAMPLED}))
        try:
            await self._of_ids(asked, np.array([[0, -1], [0, 1]]), None)
        except UpstreamRefused as error:
            if error.status == 403:
                return "the server was started without --enable-scale-out"
            return "no /inference/v1/generate" if error.status == 404 else str(error)
        except BadScores as error:
            return str(error)
        return None

    async def _top_k(self, asked: Asked, k: int) -> TopK:
        return read_prompt_logprobs(await self._prompt_logprobs(asked, k), asked, k)

    async def _prompt_logprobs(self, asked: Asked, k: int) -> Any:
        body = UNCHANGED | {
            "model": self._model,
            "prompt": asked.token_ids,
            "max_tokens": 1,
            "temperature": asked.temperature,
            "prompt_logprobs": k,
        }
        answer = await self._http.post("/v1/completions", body, len(asked.token_ids))
        choices = answer.get("choices") or [{}]
        return choices[0].get("prompt_logprobs")

    async def _of_ids(self, asked: Asked, columns: Ids, top_k: int | None) -> tuple[Logprobs, TopK | None]:
        parameters = UNCHANGED | {
            "max_tokens": 1,  # left out, the server would write until its context is full
            "temperature": asked.temperature,
            "prompt_logprob_start": asked.start - 1,
            "prompt_logprob_token_ids": columns.tolist(),
        }
        if top_k is not None:
            parameters["prompt_logprobs"] = top_k
        body = {"model": self._model, "token_ids": asked.token_ids, "sampling_params": parameters}
        answer = await self._http.post("/inference/v1/generate", body, len(asked.token_ids))
        top = None if top_k is None else read_prompt_logprobs(answer.get("prompt_logprobs"), asked, top_k)
        return _scores(answer, columns), top


def _scores(body: dict[str, Any], columns: Ids) -> Logprobs:
    """Log-probs in the shape of `columns`; those of the padding mean nothing."""
    encoded = body.get("prompt_token_id_logprobs")
    if encoded is None:
        raise BadScores("the server gave no scores for the ids: it ignored them, or found the rows in its prefix cache")
    scores = read_npy(encoded, columns.shape).astype(np.float64)
    return logprobs_of(np.where(columns >= 0, scores, -np.inf))
