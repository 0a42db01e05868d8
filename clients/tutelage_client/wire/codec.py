"""Score bodies as bytes: one safetensors file with the arrays and a small JSON text in its metadata.

Ragged batches are flat arrays plus `row_splits`; nothing is padded except candidate rows, which keep their own width.
Nothing received is unpickled, and every block validates itself while it is built.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError

from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire.scores import PER_ENTRY, TokenScores
from tutelage_client.wire.scoring import Completion, ScoreGroup, ScoreReply, ScoreRequest
from tutelage_client.wire.teachers import Provenance, Usage
from tutelage_client.wire.tensors import EntryDtype, load, narrow, save

MEDIA_TYPE = "application/vnd.tutelage.safetensors"
_CANDIDATES = ("candidate_logprob", "candidate_valid")


def encode_request(request: ScoreRequest) -> bytes:
    """A score request as bytes."""
    groups = request.groups()
    completions = [c for group in groups for c in group.completions]
    tensors: dict[str, NDArray[Any]] = {
        "prompt_ids": np.concatenate([g.prompt_ids for g in groups]),
        "prompt_splits": _splits(len(g.prompt_ids) for g in groups),
        "completions_per_prompt": np.array([len(g.completions) for g in groups], dtype=np.int64),
        "token_ids": np.concatenate([c.token_ids for c in completions]),
        "row_splits": _splits(len(c.token_ids) for c in completions),
    }
    ids = [c.candidate_ids for c in completions if c.candidate_ids is not None]
    if ids:
        tensors["candidate_ids"] = np.concatenate([rows.ravel() for rows in ids])
        tensors["candidate_width"] = np.array([rows.shape[1] for rows in ids], dtype=np.int64)
    control: dict[str, Any] = {"signals": sorted(request.signals), "top_k": request.top_k}
    if request.entry_dtype != "float32":
        control["entry_dtype"] = request.entry_dtype
    return save(tensors, _metadata("score-request.v1", control))


def decode_request(body: bytes) -> ScoreRequest:
    """The request that `encode_request` wrote.

    Raises:
        InvalidInput: not safetensors, another schema, or arrays that disagree.
    """
    tensors, control = _open(body, "score-request.v1")
    try:
        _check_whole(tensors)
        rows = _ragged(tensors["token_ids"], tensors["row_splits"])
        prompts = _ragged(tensors["prompt_ids"], tensors["prompt_splits"])
        widths = tensors.get("candidate_width")
        ids: list[NDArray[Any] | None] = [None] * len(rows)
        if widths is not None:
            flat = _ragged(
                tensors["candidate_ids"], _splits(len(r) * int(w) for r, w in zip(rows, widths, strict=True))
            )
            ids = [part.reshape(len(r), -1) for part, r in zip(flat, rows, strict=True)]
        members = _ragged(np.arange(len(rows)), _splits(tensors["completions_per_prompt"]))
        groups = tuple(
            ScoreGroup(
                prompt_ids=prompt,
                completions=tuple(Completion(token_ids=rows[i], candidate_ids=ids[i]) for i in indices),
            )
            for prompt, indices in zip(prompts, members, strict=True)
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
        "row_splits": _splits(block.rows for block in reply.scores),
        "start": np.array([block.start for block in reply.scores], dtype=np.int64),
    }
    for name in reply.scores[0].arrays() if reply.scores else {}:
        parts = [block.arrays()[name] for block in reply.scores]
        if name in _CANDIDATES:
            tensors["candidate_width"] = np.array([part.shape[1] for part in parts], dtype=np.int64)
            parts = [part.ravel() for part in parts]
        array = np.concatenate(parts) if len(parts) > 1 else parts[0]
        if name in PER_ENTRY:
            array = narrow(array, entry_dtype)
        tensors[name] = array.view(np.uint8) if array.dtype == np.bool_ else array
    spoken = {"provenance": reply.provenance.model_dump(mode="json"), "usage": reply.usage.model_dump(mode="json")}
    return save(tensors, _metadata("score-reply.v1", spoken), PER_ENTRY if entry_dtype == "bfloat16" else ())


def decode_reply(body: bytes) -> ScoreReply:
    """The reply that `encode_reply` wrote.

    Raises:
        BadScores: not safetensors, arrays that disagree, or values that are not log-probabilities.
    """
    try:
        tensors, spoken = _open(body, "score-reply.v1")
        splits, starts = tensors.pop("row_splits"), tensors.pop("start")
        widths = tensors.pop("candidate_width", None)
        columns = {name: _blocks(name, array, splits, widths) for name, array in tensors.items()}
        scores = tuple(
            TokenScores.model_validate({"start": int(start)} | {name: parts[i] for name, parts in columns.items()})
            for i, start in enumerate(starts)
        )
        return ScoreReply.model_construct(  # all of it is validated already
            scores=scores,
            provenance=Provenance.model_validate(spoken["provenance"]),
            usage=Usage.model_validate(spoken["usage"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadScores(f"the teacher's reply is not a score reply: {error}") from error


def _metadata(schema: str, content: dict[str, Any]) -> dict[str, str]:
    """One entry alone: safetensors writes several in random order, and equal messages must be equal bytes."""
    return {schema: json.dumps(content, sort_keys=True)}


def _open(body: bytes, schema: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, and what `_metadata` put beside them."""
    try:
        tensors = load(body)
        metadata = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")]).get("__metadata__", {})
        content = json.loads(metadata.get(schema, "null"))
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not safetensors: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"the body's schema is {', '.join(metadata) or None!r}, expected {schema!r}")
    return tensors, content


def _check_whole(tensors: Mapping[str, NDArray[Any]]) -> None:
    """All that a request holds are ids and lengths."""
    for name, array in tensors.items():
        if array.dtype.kind not in "iu":
            raise ValueError(f"{name} is {array.dtype}, and whole numbers are expected")


def _said(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _splits(lengths: Iterable[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(list(lengths), dtype=np.int64)]).astype(np.int64)


def _ragged(flat: NDArray[Any], splits: NDArray[Any]) -> Sequence[NDArray[Any]]:
    """Cut `flat` at `splits`, which must start at 0, never fall and end at its length."""
    if splits.ndim != 1 or len(splits) < 1 or splits[0] != 0 or splits[-1] != len(flat) or (np.diff(splits) < 0).any():
        raise ValueError("row splits must start at 0, never fall and end at the number of rows")
    return [flat[a:b] for a, b in itertools.pairwise(splits)]


def _blocks(
    name: str, array: NDArray[Any], splits: NDArray[Any], widths: NDArray[Any] | None
) -> Sequence[NDArray[Any]]:
    if name not in _CANDIDATES:
        return _ragged(array, splits)
    if widths is None:
        raise ValueError("candidate_width is missing")
    rows = np.diff(splits)
    parts = _ragged(array, _splits(int(n) * int(w) for n, w in zip(rows, widths, strict=True)))
    return [part.reshape(int(n), int(w)) for part, n, w in zip(parts, rows, widths, strict=True)]
