"""An SGLang server as a teacher, by its native `/generate`.

`logprob_start_len` s asks for the rows from token s on, and the first of them carries no score: with s = start - 1 that
one is dropped. It keeps a prompt's prefix up to there in its cache. Ids can be named once a request only, so candidates
are asked for as the union over all rows and gathered here; where the union is too large, the top k covers what it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tutelage.engines.options import UpstreamOptions
from tutelage.engines.upstream.asked import Answer, Asked, Ids, Logprobs, given_candidates, logprobs_of
from tutelage.engines.upstream.choices import REASONS, plain
from tutelage.engines.upstream.dialect import Learned
from tutelage.engines.upstream.discovery import largest_taken, model_length, served_model
from tutelage.engines.upstream.failures import UpstreamFailed, UpstreamRefused
from tutelage.engines.upstream.http import UpstreamHttp
from tutelage.engines.upstream.prompt_logprobs import answer_from_top_k
from tutelage.engines.upstream.tab import Tab
from tutelage_client.errors import BadScores
from tutelage_client.wire import GenerateRequest, Generation, Signal

MAX_UNION_CELLS = 1 << 20  # rows times ids that one answer may hold, about 70 MB of JSON


class Sglang:
    """The dialect of SGLang 0.5."""

    def __init__(self, http: UpstreamHttp, options: UpstreamOptions, vocabulary_size: int) -> None:
        self._http = http
        self._options = options
        self._vocabulary_size = vocabulary_size
        self._max_top_k = 1

    async def learn(self) -> Learned:
        info = await self._server_info()
        card = served_model((await self._http.get("/v1/models")).get("data") or [], self._options.upstream_model)
        self._max_top_k = await largest_taken(self._take_top_k, min(self._options.max_top_k, self._vocabulary_size))
        return Learned(
            model=str(card.get("root") or card["id"]),
            version=str(info.get("version", "unknown")),
            max_top_k=self._max_top_k,
            max_length=model_length(card, self._options.max_length),
            covers_candidates=False,
            keeps_prompts=True,
            facts={"candidates": f"each has its score up to {MAX_UNION_CELLS} rows x different ids, else the top k"},
        )

    async def score(self, asked: Asked, _: Tab) -> Answer:
        ids = asked.candidate_ids
        union = None if ids is None else np.unique(ids[ids >= 0])
        if union is not None and asked.rows * len(union) > MAX_UNION_CELLS:
            return _read(await self._meta(asked, self._max_top_k, None), asked, self._max_top_k)
        meta = await self._meta(asked, asked.top_k or 0, union)
        answer = _read(meta, replace(asked, candidate_ids=None), asked.top_k or 0)
        if union is not None and ids is not None:
            values = _gather(_rows(meta, "input_token_ids_logprobs", asked), union, ids)
            answer.arrays.update(given_candidates(ids, values))
        return answer

    async def write(
        self, prompt_ids: Sequence[int], request: GenerateRequest, seed: int | None, _: Tab
    ) -> list[Generation]:
        parameters = {
            "n": request.n,
            "max_new_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "stop": request.stop,
        } | ({} if seed is None else {"sampling_seed": seed})
        body = {"input_ids": list(prompt_ids), "sampling_params": parameters, "return_logprob": True}
        answer = await self._http.post_any("/generate", body)
        texts = answer if isinstance(answer, list) else [answer]
        if len(texts) != request.n:
            raise UpstreamFailed(f"the upstream wrote {len(texts)} continuations, asked were {request.n}")
        return [_generation(one, keep_logprobs=plain(request)) for one in texts]

    async def tokenize(self, text: str) -> list[int] | None:
        try:
            answer = await self._http.post("/tokenize", {"prompt": text, "add_special_tokens": False})
        except UpstreamRefused as error:
            if error.status == 404:
                return None
            raise
        return answer.get("tokens")

    async def spell(self, token_ids: Sequence[int]) -> list[str | None]:
        asked = Asked([0, *token_ids], 1, frozenset({Signal.SAMPLED}))
        rows = _rows(await self._meta(asked, 0, None, texts=True), "input_token_logprobs", asked)
        return [row[2] for row in rows]

    async def close(self) -> None:
        await self._http.close()

    async def _server_info(self) -> dict[str, Any]:
        try:
            return await self._http.get("/server_info")
        except UpstreamRefused as error:
            if error.status != 404:
                raise
            return await self._http.get("/get_server_info")  # its name before 0.5.5

    async def _take_top_k(self, k: int) -> None:
        asked = Asked([0, 0], 1, frozenset({Signal.TOP_K}), k)
        _pairs(_rows(await self._meta(asked, k, None), "input_top_logprobs", asked), k)

    async def _meta(self, asked: Asked, top_k: int, union: Ids | None, *, texts: bool = False) -> dict[str, Any]:
        body = {
            "input_ids": asked.token_ids,
            "sampling_params": {"max_new_tokens": 0, "temperature": asked.temperature},
            "return_logprob": True,
            "logprob_start_len": asked.start - 1,
            "top_logprobs_num": top_k,
            "return_text_in_logprobs": texts,
        } | ({} if union is None else {"token_ids_logprob": union.tolist()})
        meta = (await self._http.post("/generate", body, len(asked.token_ids))).get("meta_info")
        if not isinstance(meta, dict):
            raise BadScores("the upstream's answer has no meta_info")
        return meta


def _read(meta: dict[str, Any], asked: Asked, k: int) -> Answer:
    """What the realised tokens and the top k say."""
    own_ids, own_logprobs = _pairs([[row] for row in _rows(meta, "input_token_logprobs", asked)], 1)
    if (own_ids[:, 0] != asked.scored_ids).any():
        raise BadScores("the upstream scored other tokens than those it was given", "mismatch")
    top = _pairs(_rows(meta, "input_top_logprobs", asked), k) if k else _none(asked)
    return answer_from_top_k(asked, *top, own_logprobs[:, 0], cached=int(meta.get("cached_tokens") or 0))


def _rows(meta: dict[str, Any], name: str, asked: Asked) -> list[Any]:
    """The list `name` without its first entry, which has no score."""
    rows = meta.get(name)
    if not isinstance(rows, list) or len(rows) != asked.rows + 1:
        got = len(rows) - 1 if isinstance(rows, list) and rows else 0
        raise BadScores(f"{name} has {got} scored rows, asked were {asked.rows}", "length")
    return rows[1:]


def _pairs(rows: list[Any], width: int) -> tuple[Ids, Logprobs]:
    """Ids and log-probs, both [R, width], of rows of `[logprob, id, text]`."""
    try:
        logprobs = [[entry[0] for entry in row] for row in rows]
        ids = np.array([[int(entry[1]) for entry in row] for row in rows], dtype=np.int64)
    except (TypeError, ValueError, IndexError) as error:
        raise BadScores("the upstream's log-probs have rows of unequal width, or an entry without an id") from error
    if ids.shape != (len(rows), width):
        raise BadScores(f"the upstream gave {list(ids.shape)} log-probs, asked were {[len(rows), width]}", "length")
    return ids, logprobs_of(logprobs)


def _gather(rows: list[Any], union: Ids, candidate_ids_RC: Ids) -> Logprobs:
    """The candidates' log-probs [R, C] out of the union's; a padded cell holds -inf."""
    if not len(union):
        return np.full(candidate_ids_RC.shape, -np.inf)
    ids, logprobs = _pairs(rows, len(union))
    if (np.sort(ids, axis=1) != union).any():
        raise BadScores("the upstream gave log-probs of other ids than those it was asked for", "mismatch")
    logprobs = np.take_along_axis(logprobs, np.argsort(ids, axis=1), 1)
    place = np.minimum(np.searchsorted(union, candidate_ids_RC), len(union) - 1)
    return np.where(candidate_ids_RC >= 0, np.take_along_axis(logprobs, place, 1), -np.inf)


def _none(asked: Asked) -> tuple[Ids, Logprobs]:
    """A top k of nothing."""
    return np.zeros((asked.rows, 0), dtype=np.int64), np.zeros((asked.rows, 0))


def _generation(one: dict[str, Any], *, keep_logprobs: bool) -> Generation:
    meta = one.get("meta_info") or {}
    reason = (meta.get("finish_reason") or {}).get("type")
    if reason not in REASONS:
        raise UpstreamFailed(f"the upstream ended a text with {reason!r}, which is no usable end")
    pairs = meta.get("output_token_logprobs") or []
    ids = one.get("output_ids")
    ids = [int(pair[1]) for pair in pairs] if ids is None else ids
    logprobs = [pair[0] for pair in pairs] if keep_logprobs and len(pairs) == len(ids) else None
    return Generation(text=one.get("text") or "", token_ids=ids, logprobs=logprobs, finish_reason=REASONS[reason])
