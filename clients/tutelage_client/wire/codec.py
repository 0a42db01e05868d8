"""Score bodies as bytes: one safetensors file with the arrays and a small JSON text in its metadata.

Ragged batches are flat arrays plus `row_splits`; nothing is padded except candidate rows, which keep their own width.
Nothing received is unpickled, and every block validates itself while it is built.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json, to_json

from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire.scores import PER_ENTRY, TokenScores, read_column
from tutelage_client.wire.scoring import (
    MOST_SEQUENCES,
    Completion,
    ScoreGroup,
    ScoreReply,
    ScoreRequest,
    too_many,
)
from tutelage_client.wire.teachers import Provenance, Usage
from tutelage_client.wire.tensors import EntryDtype, load, narrow, save

MEDIA_TYPE = "application/vnd.tutelage.safetensors"
_CANDIDATES = ("candidate_logprob", "candidate_valid")
_LISTS = (
    "row_splits",
    "prompt_splits",
    "completions_per_prompt",
    "candidate_width",
)  # an entry a sequence, or one more
Flat = TypeVar("Flat", NDArray[Any], list[Completion])


def encode_request(request: ScoreRequest) -> bytes:
    """A score request as bytes."""
    groups = request.groups()
    completions = [c for group in groups for c in group.completions]
    tensors: dict[str, NDArray[Any]] = {
        "prompt_ids": np.concatenate([g.prompt_ids for g in groups]),
        "prompt_splits": _int64(_splits(len(g.prompt_ids) for g in groups)),
        "completions_per_prompt": _int64(len(g.completions) for g in groups),
        "token_ids": np.concatenate([c.token_ids for c in completions]),
        "row_splits": _int64(_splits(len(c.token_ids) for c in completions)),
    }
    ids = [c.candidate_ids for c in completions if c.candidate_ids is not None]
    if ids:
        tensors["candidate_ids"] = np.concatenate([rows.ravel() for rows in ids])
        tensors["candidate_width"] = _int64(rows.shape[1] for rows in ids)
    control: dict[str, Any] = {"signals": sorted(request.signals), "top_k": request.top_k}
    if request.entry_dtype != "float32":
        control["entry_dtype"] = request.entry_dtype
    if request.own_batch:
        control["own_batch"] = True
    return save(tensors, {"score-request.v1": to_json(control).decode()})


def decode_request(body: bytes) -> ScoreRequest:
    """The request that `encode_request` wrote.

    Raises:
        InvalidInput: not safetensors, another schema, or arrays that disagree.
    """
    tensors, control = _open(body, "score-request.v1")
    try:
        _check_whole(tensors)
        rows = _ragged(tensors["token_ids"], tensors["row_splits"].tolist())
        prompts = _ragged(tensors["prompt_ids"], tensors["prompt_splits"].tolist())
        ids: Sequence[NDArray[Any] | None] = [None] * len(rows)
        if "candidate_width" in tensors:
            widths = tensors["candidate_width"].tolist()
            flat = _ragged(tensors["candidate_ids"], _splits(len(r) * w for r, w in zip(rows, widths, strict=True)))
            ids = [part.reshape(len(r), -1) for part, r in zip(flat, rows, strict=True)]
        completions = [Completion(token_ids=r, candidate_ids=i) for r, i in zip(rows, ids, strict=True)]
        members = _ragged(completions, _splits(tensors["completions_per_prompt"].tolist()))
        groups = tuple(
            ScoreGroup(prompt_ids=prompt, completions=tuple(own)) for prompt, own in zip(prompts, members, strict=True)
        )
        return ScoreRequest(sequences=groups, **control)
    except ValidationError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"the binary score request does not fit together: {_said(error)}") from error


def encode_reply(reply: ScoreReply, entry_dtype: EntryDtype = "float32") -> bytes:
    """A score reply as bytes. What a row has several of travels as `entry_dtype`, what it has one of always in full.

    Raises:
        InvalidInput: float16 cannot hold one of the numbers.
    """
    tensors: dict[str, NDArray[Any]] = {
        "row_splits": _int64(_splits(block.rows for block in reply.scores)),
        "start": _int64(block.start for block in reply.scores),
    }
    blocks = [block.arrays() for block in reply.scores]
    for name in blocks[0] if blocks else ():
        parts = [arrays[name] for arrays in blocks]
        if name in _CANDIDATES:
            tensors["candidate_width"] = _int64(part.shape[1] for part in parts)
            parts = [part.ravel() for part in parts]
        array = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if name in PER_ENTRY:
            array = narrow(array, entry_dtype)
        tensors[name] = array.view(np.uint8) if array.dtype == np.bool_ else array
    return save(tensors, {"score-reply.v1": reply.model_dump_json(exclude={"scores"})})


def decode_reply(body: bytes) -> ScoreReply:
    """The reply that `encode_reply` wrote.

    Raises:
        BadScores: not safetensors, arrays that disagree, or values that are not log-probabilities.
    """
    try:
        tensors, spoken = _open(body, "score-reply.v1")
        splits, starts = _numbers(tensors, "row_splits"), _numbers(tensors, "start")
        widths = _numbers(tensors, "candidate_width") if "candidate_width" in tensors else []
        columns = {name: _blocks(name, read_column(name, array), splits, widths) for name, array in tensors.items()}
        scores = tuple(
            TokenScores.unchecked(start, {name: parts[i] for name, parts in columns.items()})
            for i, (start, _) in enumerate(zip(starts, itertools.pairwise(splits), strict=True))
        )
        for block in scores:
            block.check()
        return ScoreReply.model_construct(  # all of it is validated already
            scores=scores,
            provenance=Provenance.model_validate(spoken["provenance"]),
            usage=Usage.model_validate(spoken["usage"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadScores(f"the teacher's reply is not a score reply: {_said(error)}") from error


def _open(body: bytes, schema: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, and the text beside them, under the name of what the body is."""
    try:
        tensors, metadata = load(body)
        content = from_json(metadata.get(schema, "null"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not safetensors: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"the body's schema is {', '.join(metadata) or None!r}, expected {schema!r}")
    return tensors, content


def _check_whole(tensors: Mapping[str, NDArray[Any]]) -> None:
    """All that a request holds are lists of ids and lengths, and these are not too many to be cut at."""
    for name, array in tensors.items():
        _check_whole_numbers(name, array)
        _check_flat(name, array)
        if name in _LISTS and array.size > MOST_SEQUENCES + 1:
            raise InvalidInput(too_many(array.size - 1), "sequences")


def _check_whole_numbers(name: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} is {array.dtype}, and whole numbers are expected")


def _check_flat(name: str, array: NDArray[Any]) -> None:
    """An array of no bytes may have an axis of any length, and as nested lists it would fill the memory."""
    if array.ndim != 1:
        raise ValueError(f"{name} has the shape {array.shape}, and one list is expected")


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _numbers(tensors: dict[str, NDArray[Any]], name: str) -> list[int]:
    """Those of one list, which is taken out of the tensors."""
    array = tensors.pop(name)
    _check_whole_numbers(name, array)
    _check_flat(name, array)
    return array.tolist()


def _splits(lengths: Iterable[int]) -> list[int]:
    return [0, *itertools.accumulate(lengths)]


def _int64(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.array(list(numbers), dtype=np.int64)


def _ragged(flat: Flat, splits: Sequence[int]) -> list[Flat]:
    """Cut `flat` at `splits`, which must start at 0, never fall and end at its length."""
    pairs = list(itertools.pairwise(splits))
    if not splits or splits[0] != 0 or splits[-1] != len(flat) or any(b < a for a, b in pairs):
        raise ValueError("row splits must start at 0, never fall and end at the number of rows")
    return [flat[a:b] for a, b in pairs]


def _blocks(name: str, array: NDArray[Any], splits: list[int], widths: list[int]) -> Sequence[NDArray[Any]]:
    if name not in _CANDIDATES:
        return _ragged(array, splits)
    sizes = [(b - a, width) for (a, b), width in zip(itertools.pairwise(splits), widths, strict=True)]
    parts = _ragged(array, _splits(rows * width for rows, width in sizes))
    return [part.reshape(size) for part, size in zip(parts, sizes, strict=True)]
