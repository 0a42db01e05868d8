"""Encode and decode a score reply of 2,048 rows: our binary body against the same scores as JSON.

Peers: the JSON of this project's own door (pydantic), and the maps by token of vLLM's `prompt_logprobs`, through the
standard library and then our adapter, as a server's are read. Both sides validate what they read.
`bytes_an_entry` is the whole body over its rows times its entries; for hidden states, over rows times the hidden size.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydantic
from numpy.typing import NDArray

from benchmarks.measure import Cell, interval, load_1min, paired
from tutelage.engines.upstream.asked import Asked
from tutelage.engines.upstream.prompt_logprobs import answer_from_top_k, read_prompt_logprobs
from tutelage_client.wire import Provenance, ScoreReply, Signal, TokenScores, Usage, decode_reply, encode_reply
from tutelage_client.wire.tensors import EntryDtype

ROWS, HIDDEN = 2048, 1024
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Peer:
    """Another way to send `reply`; its result is the arrays that were read."""

    name: str
    version: str
    send: Callable[[], Arrays]
    bytes: int


def transport(*, short: bool) -> list[Cell]:
    repetitions = 3 if short else 30
    one, many = made(1), made(64)
    return [
        cell("top 1", one, own_json(one), repetitions),
        cell("top 64", many, own_json(many), repetitions),
        cell("top 64", many, maps_by_token(many), repetitions),
        cell("top 64, float16", many, maps_by_token(many), repetitions, "float16"),
        cell(f"hidden {HIDDEN}, bfloat16", states(), own_json(states()), max(3, repetitions // 3), "bfloat16"),
    ]


def cell(name: str, reply: ScoreReply, peer: Peer, repetitions: int, entry_dtype: EntryDtype = "float32") -> Cell:
    cpu_ms: list[float] = []

    def ours() -> ScoreReply:
        begun_ns = time.thread_time_ns()
        read = decode_reply(encode_reply(reply, entry_dtype))
        cpu_ms.append((time.thread_time_ns() - begun_ns) / 1e6)
        return read

    for _ in range(repetitions):
        ours()
    in_a_row_ms = cpu_ms[:]
    cpu_ms.clear()
    mine, other = paired(ours, peer.send, repetitions)
    ratios = [t / o for o, t in zip(mine, other, strict=True)]
    body = len(encode_reply(reply, entry_dtype))
    arrays = reply.scores[0].arrays()
    entries = next(arrays[name].size for name in ("topk_logprob", "hidden") if name in arrays)
    return Cell(
        cell=f"{ROWS} rows, {name}",
        peer={"name": peer.name, "version": peer.version, "settings": {}},
        ours=statistics.median(mine),
        theirs=statistics.median(other),
        ratio=statistics.median(ratios),
        ci=interval(ratios),
        equal=same(ours().scores[0].arrays(), peer.send(), entry_dtype),
        counted={
            "cpu_ms_ours": statistics.median(cpu_ms),
            "cpu_ms_in_a_row": statistics.median(in_a_row_ms),
            "bytes_ours": body,
            "bytes_theirs": peer.bytes,
            "bytes_an_entry": body / entries,
            "load_1min": load_1min(),
        },
    )


def own_json(reply: ScoreReply) -> Peer:
    def send() -> Arrays:
        return ScoreReply.model_validate_json(reply.model_dump_json()).scores[0].arrays()

    return Peer("JSON of the same reply", f"pydantic {pydantic.VERSION}", send, len(reply.model_dump_json()))


def maps_by_token(reply: ScoreReply) -> Peer:
    """A map of each row from id to log-prob, rank and text; the row's own token is its best."""
    scores = reply.scores[0]
    ids, logprobs = scores.topk_ids, scores.topk_logprob
    assert ids is not None and logprobs is not None
    rows = [None, *(_map(*row) for row in zip(ids.tolist(), logprobs.astype(np.float64).tolist(), strict=True))]
    asked = Asked([0, *ids[:, 0].tolist()], 1, frozenset({Signal.SAMPLED, Signal.TOP_K}), ids.shape[1])

    def send() -> Arrays:
        read = read_prompt_logprobs(json.loads(json.dumps(rows)), asked, ids.shape[1])
        return answer_from_top_k(asked, *read).block(asked).arrays()

    return Peer("maps by token, as vLLM writes them", "json", send, len(json.dumps(rows)))


def _map(ids: list[int], logprobs: list[float]) -> dict[str, Any]:
    return {
        str(i): {"logprob": logprob, "rank": rank, "decoded_token": f" token{i}"}
        for rank, (i, logprob) in enumerate(zip(ids, logprobs, strict=True), 1)
    }


def made(k: int) -> ScoreReply:
    """A reply with the sampled token and the top k of every row."""
    draw = np.random.default_rng(0)
    logprob = -np.sort(draw.exponential(2.0, (ROWS, k)).astype(np.float32) + np.float32(np.log(k) + 1), axis=1)
    return reply_of(
        sampled_logprob=logprob[:, 0],
        topk_ids=np.argsort(draw.random((ROWS, max(k, 256))), axis=1)[:, :k].astype(np.int32),
        topk_logprob=logprob,
        topk_rest_mass=(1 - np.exp(logprob.astype(np.float64)).sum(1)).astype(np.float32),
    )


def states() -> ScoreReply:
    """A reply with hidden states that bfloat16 holds exactly, as those of a bfloat16 model are."""
    hidden = np.random.default_rng(0).standard_normal((ROWS, HIDDEN)).astype(np.float32)
    return reply_of(hidden=(hidden.view(np.uint32) & 0xFFFF0000).view(np.float32))


def reply_of(**arrays: Any) -> ScoreReply:
    names: dict[str, Any] = {name: "bench" for name in Provenance.model_fields if name != "temperature"}
    scores = TokenScores(start=1, valid=np.ones(ROWS, dtype=np.bool_), **arrays)
    return ScoreReply(scores=(scores,), provenance=Provenance(**names), usage=Usage())


def same(ours: Arrays, theirs: Arrays, entry_dtype: EntryDtype) -> bool:
    """The same arrays; log-probs that went as float16 are the same to half of its last place."""
    rounding = 2**-11 if entry_dtype == "float16" else 1e-7
    return ours.keys() == theirs.keys() and all(
        np.allclose(ours[name], theirs[name], rtol=rounding, atol=1e-6, equal_nan=True) for name in ours
    )
