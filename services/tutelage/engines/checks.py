"""What every engine refuses and how every engine counts, so that all of them agree."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Capabilities, Prompt, ScoreGroup, Usage

_TEMPLATE_TOKENS = 64  # what a chat template may add to a message


def check_groups(groups: Sequence[ScoreGroup], capabilities: Capabilities) -> None:
    """Refuse what the model cannot score.

    Raises:
        InvalidInput: a sequence over the model's length, or a token id outside its vocabulary.
    """
    for i, group in enumerate(groups):
        check_length(group.longest, capabilities, f"sequences.{i}")
        for completion in group.completions:
            if completion.candidate_ids is not None:
                check_ids(completion.candidate_ids, capabilities, f"sequences.{i}.candidate_ids", lowest=-1)
    lists = [(i, ids) for i, group in enumerate(groups) for ids in _lists(group)]
    if not _are_known(np.concatenate([ids for _, ids in lists]), capabilities):  # one look at all of them
        for i, ids in lists:
            check_ids(ids, capabilities, f"sequences.{i}")


def check_length(tokens: int, capabilities: Capabilities, field: str) -> None:
    """Refuse a sequence that is longer than the model can read."""
    if tokens > capabilities.max_length:
        message = f"{field} has {tokens} tokens, the model reads at most {capabilities.max_length}; shorten it"
        raise InvalidInput(message, field)


def check_ids(ids: Sequence[int] | NDArray[np.int32], capabilities: Capabilities, field: str, lowest: int = 0) -> None:
    """Refuse a token id that is below `lowest` or not in the vocabulary."""
    if capabilities.vocabulary_size is None:
        return
    array = np.asarray(ids)
    low, high = (int(array.min()), int(array.max())) if array.size else (lowest, lowest)
    if low < lowest or high >= capabilities.vocabulary_size:
        wrong = low if low < lowest else high
        raise InvalidInput(
            f"{field} holds the token id {wrong}, the model knows ids from {lowest} to "
            f"{capabilities.vocabulary_size - 1}; use this teacher's tokenizer",
            field,
        )


def _lists(group: ScoreGroup) -> list[NDArray[np.int32]]:
    return [group.prompt_ids, *(completion.token_ids for completion in group.completions)]


def _are_known(ids: NDArray[np.int32], capabilities: Capabilities) -> bool:
    size = capabilities.vocabulary_size
    return size is None or bool(ids.view(np.uint32).max() < size)  # where a negative id is a very large one


def score_usage(groups: Sequence[ScoreGroup], *, shared: bool = True) -> Usage:
    """What scoring costs. Nothing needs the last token of a completion as input.

    shared: a prompt goes through the model once a group, not once a completion
    """
    scored = sum(group.scored_tokens for group in groups)
    repeated = sum(len(g.prompt_ids) * (len(g.completions) - 1) for g in groups)
    once = sum(len(g.prompt_ids) - len(g.completions) for g in groups) + scored
    return Usage(
        scored_tokens=scored,
        forward_tokens=once + (0 if shared else repeated),
        cached_tokens=repeated if shared else 0,
    )


def generation_usage(prompts: Sequence[Sequence[int]], n: int, generated: int) -> Usage:
    """What text costs where the `n` continuations of a prompt share its encoding."""
    forward = sum(map(len, prompts))
    return Usage(forward_tokens=forward, cached_tokens=forward * (n - 1), generated_tokens=generated)


def most_generated(prompts: Sequence[Prompt], n: int, max_tokens: int, max_length: int) -> Usage:
    """The most that `n` continuations of each prompt take, read anew for each. max_length: of a prompt, in tokens"""
    read = sum(min(_most_tokens(prompt), max_length) for prompt in prompts)
    return Usage(forward_tokens=read * n, generated_tokens=len(prompts) * n * max_tokens)


def _most_tokens(prompt: Prompt) -> int:
    """A token of text is at least a byte."""
    if isinstance(prompt, str):
        return len(prompt.encode()) + _TEMPLATE_TOKENS
    return sum(1 if isinstance(p, int) else len(json.dumps(p).encode()) + _TEMPLATE_TOKENS for p in prompt)
