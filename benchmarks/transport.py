"""Encode and decode a score reply: our binary body against the same reply as JSON, which is what most APIs send.

The peer is this project's own JSON door (pydantic), so both sides carry and validate the same values.
"""

from __future__ import annotations

import statistics

import numpy as np
import pydantic

from benchmarks.measure import Cell, interval, paired
from tutelage_client.wire import Provenance, ScoreReply, TokenScores, Usage, decode_reply, encode_reply


def transport(*, short: bool) -> list[Cell]:
    return [cell(rows=2048, k=k, repetitions=3 if short else 30) for k in (1, 64)]


def cell(rows: int, k: int, repetitions: int) -> Cell:
    reply = made(rows, k)

    def ours() -> ScoreReply:
        return decode_reply(encode_reply(reply))

    def theirs() -> ScoreReply:
        return ScoreReply.model_validate_json(reply.model_dump_json())

    mine, other = paired(ours, theirs, repetitions)
    ratios = [t / o for o, t in zip(mine, other, strict=True)]
    return Cell(
        cell=f"{rows} rows, top {k}",
        peer={"name": "JSON of the same reply", "version": f"pydantic {pydantic.VERSION}", "settings": {}},
        ours=statistics.median(mine),
        theirs=statistics.median(other),
        ratio=statistics.median(ratios),
        ci=interval(ratios),
        equal=same(ours(), theirs()),
        counted={"bytes_ours": len(encode_reply(reply)), "bytes_theirs": len(reply.model_dump_json())},
    )


def made(rows: int, k: int) -> ScoreReply:
    """A reply with the sampled token and the top k of every row."""
    draw = np.random.default_rng(0)
    logprob = -np.sort(draw.exponential(2.0, (rows, k)).astype(np.float32) + 0.01, axis=1)
    scores = TokenScores(
        start=1,
        valid=np.ones(rows, dtype=np.bool_),
        sampled_logprob=logprob[:, 0],
        topk_ids=np.argsort(draw.random((rows, max(k, 256))), axis=1)[:, :k].astype(np.int32),
        topk_logprob=logprob,
        topk_rest_mass=np.zeros(rows, dtype=np.float32),
    )
    names = {name: "bench" for name in Provenance.model_fields if name != "temperature"}
    return ScoreReply(scores=(scores,), provenance=Provenance(**names), usage=Usage())


def same(one: ScoreReply, other: ScoreReply) -> bool:
    pairs = zip(one.scores[0].arrays().items(), other.scores[0].arrays().items(), strict=True)
    return all(a == b and np.array_equal(x, y, equal_nan=True) for (a, x), (b, y) in pairs)
