"""`tutelage score`: a teacher's log-probabilities of given tokens, as a table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tutelage_client.cli import show
from tutelage_client.cli.connect import BRIEF
from tutelage_client.connection import bearer_key, checked
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import ScoreReply, ScoreRequest, TokenScores


async def score(args: argparse.Namespace) -> int:
    request = _request(args)
    async with TeacherClient(checked(args.teacher), key=bearer_key(args.key_file), retry=BRIEF) as teacher:
        reply = await teacher.score(request)
    if args.json:
        show.document(reply)
    else:
        _describe(request, reply)
    return 0


def _request(args: argparse.Namespace) -> ScoreRequest:
    """From the file or from the flags.

    Raises:
        InvalidInput: both or neither are given, or it is no score request.
    """
    if (args.request is None) == (args.token_ids is None):
        raise InvalidInput("give either --token-ids or a FILE with a score request (- for standard input)")
    try:
        if args.request is None:
            return ScoreRequest.of(args.token_ids, start=args.start, top_k=args.top_k, entropy=args.entropy)
        return ScoreRequest.model_validate_json(_read(args.request))
    except ValidationError as error:
        sentence, field = explain(error)
        where = {None: "", "-": "standard input: "}.get(args.request, f"{args.request}: ")
        raise InvalidInput(where + sentence, field) from error


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}") from error


def _describe(request: ScoreRequest, reply: ScoreReply) -> None:
    tokens = [completion.token_ids for group in request.groups() for completion in group.completions]
    for number, (token_ids, block) in enumerate(zip(tokens, reply.scores, strict=True)):
        if len(tokens) > 1:
            show.say(("\n" if number else "") + f"sequence {number}")
        _table(token_ids, block)
    who, usage = reply.provenance, reply.usage
    show.say(f"\n{who.teacher}: {who.model} with {who.engine} {who.engine_version}, {who.dtype}")
    show.say(f"{usage.scored_tokens} tokens scored, {usage.forward_tokens} computed, {usage.cached_tokens} from cache")


def _table(token_ids: NDArray[np.int32], block: TokenScores) -> None:
    """One row a token."""
    columns: dict[str, show.Column] = {"POSITION": "right", "TOKEN": "right"}
    cells: list[list[str]] = [[str(block.start + row), str(token_ids[row])] for row in range(block.rows)]
    for title, name in (("LOGPROB", "sampled_logprob"), ("ENTROPY", "entropy"), ("REST MASS", "topk_rest_mass")):
        values = getattr(block, name)
        if values is not None:
            columns[title] = "right"
            for row, value in zip(cells, values, strict=True):
                row.append(_nats(value))
    for title, listed in (("TOP K", _top_k(block)), ("CANDIDATES", _candidates(block))):
        if listed is not None:
            columns[title] = "wrap"
            for row, text in zip(cells, listed, strict=True):
                row.append(text)
    show.table(columns, cells)


def _nats(value: Any) -> str:
    """NaN is a row that was not scored."""
    return show.NOTHING if np.isnan(value) else "-inf" if np.isneginf(value) else f"{value:.4f}"


def _top_k(block: TokenScores) -> list[str] | None:
    if block.topk_ids is None or block.topk_logprob is None:
        return None
    pairs = zip(block.topk_ids, block.topk_logprob, strict=True)
    return ["  ".join(f"{i}:{_nats(v)}" for i, v in zip(ids, values, strict=True)) for ids, values in pairs]


def _candidates(block: TokenScores) -> list[str] | None:
    if block.candidate_logprob is None:
        return None
    return ["  ".join(map(_nats, row)) for row in block.candidate_logprob]
