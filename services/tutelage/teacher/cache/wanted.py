"""One completion to score under a key of everything that its answer depends on, and a score block as bytes.

`entry_dtype` is not part of it: blocks are kept as the engine gave them, and narrowed when a reply is written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import tutelage
from tutelage.engines.checks import score_usage
from tutelage_client.wire import Capabilities, Completion, Provenance, ScoreGroup, Signal, TokenScores, Usage
from tutelage_client.wire.tensors import load, save


@dataclass(frozen=True, slots=True)
class Wanted:
    """A completion of the request's group number `group`. key: 32 bytes"""

    key: bytes
    group: int
    prompt: ScoreGroup
    completion: Completion


def scope_of(provenance: Provenance, capabilities: Capabilities, salt: bytes) -> bytes:
    """Who answers, as 32 bytes. salt: tells apart weights that the provenance does not"""
    able = [capabilities.max_top_k, capabilities.covers_candidates, capabilities.exact]
    who = json.dumps([tutelage.__version__, provenance.model_dump(mode="json"), able], sort_keys=True)
    return hashlib.sha256(salt + who.encode()).digest()


def wanted_of(
    groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None, scope: bytes
) -> list[Wanted]:
    """Every completion, in order."""
    asked = hashlib.sha256(scope + json.dumps([sorted(signals), top_k]).encode())
    found = []
    for i, group in enumerate(groups):
        of_prompt = asked.copy()
        of_prompt.update(_bytes_of(group.prompt_ids))
        for completion in group.completions:
            key = of_prompt.copy()
            key.update(_bytes_of(completion.token_ids))
            if completion.candidate_ids is not None:
                key.update(_bytes_of(completion.candidate_ids))
            found.append(Wanted(key.digest(), i, group, completion))
    return found


def groups_of(wanted: Iterable[Wanted]) -> list[ScoreGroup]:
    """The completions behind their prompts again, in order."""
    return [
        ScoreGroup.model_construct(prompt_ids=ones[0].prompt.prompt_ids, completions=tuple(w.completion for w in ones))
        for _, group in itertools.groupby(wanted, key=lambda one: one.group)
        if (ones := list(group))
    ]


def spared(wanted: Sequence[Wanted]) -> Usage:
    """The usage of completions that did not have to go through the model."""
    usage = score_usage(groups_of(wanted))
    return Usage(scored_tokens=usage.scored_tokens, cached_tokens=usage.forward_tokens + usage.cached_tokens)


def body_of(block: TokenScores) -> bytes:
    """The arrays of a block, bit for bit."""
    arrays = {name: a.view(np.uint8) if a.dtype == np.bool_ else a for name, a in block.arrays().items()}
    return save(arrays | {"start": np.array([block.start], dtype=np.int64)}, {})


def block_of(body: bytes) -> TokenScores:
    """What `body_of` wrote."""
    arrays, _ = load(body)
    return TokenScores.model_validate(arrays | {"start": int(arrays["start"][0])})


def _bytes_of(ids: np.ndarray) -> bytes:
    """With their shape before them, so that no two lists run into the same bytes."""
    return repr(ids.shape).encode() + ids.astype("<i4").tobytes()
