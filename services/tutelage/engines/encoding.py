"""Hidden states of the scored rows of a batch: a prompt that several completions share is encoded once.

A row's score needs the state before its token: the prompt's last token speaks of the first completion token, and the
last completion token is never fed. Shapes: R rows, T padded width, H hidden size (V where `model` returns logits).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from tutelage.engines.padding import left_pad, right_pad
from tutelage_client.wire import ScoreGroup

# Below this length a forward costs its overhead and padding is free.
SHORT = 64


class Encoder:
    """`read` picks the states out of what `model` returns, [R, T, H]; `shares`: completions share their prompt."""

    def __init__(self, model: Any, read: Callable[[Any], Tensor], pad_id: int, *, shares: bool) -> None:
        self._model = model
        self._read = read
        self._pad_id = pad_id
        self._device = next(model.parameters()).device
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self.shares = shares

    def states(self, groups: Sequence[ScoreGroup]) -> Tensor:
        """States [N, H] of all N scored tokens, in the order of groups and completions."""
        parts: list[list[Tensor]] = [[] for _ in groups]
        shared = [i for i, g in enumerate(groups) if self.shares and len(g.completions) > 1]
        plain = [i for i in range(len(groups)) if i not in set(shared)]
        for members in _alike(plain, [groups[i].longest for i in plain]):
            for i, states in zip(members, self._plain([groups[i] for i in members]), strict=True):
                parts[i] = states
        for members in _alike(shared, [len(groups[i].prompt_ids) for i in shared]):
            for i, states in zip(members, self._shared([groups[i] for i in members]), strict=True):
                parts[i] = states
        return torch.cat([states for part in parts for states in part])

    def _plain(self, groups: Sequence[ScoreGroup]) -> Iterator[list[Tensor]]:
        """Whole sequences, padded on the right: causal attention never sees that padding, so no mask is needed."""
        rows = [np.concatenate([g.prompt_ids, c.token_ids[:-1]]) for g in groups for c in g.completions]
        batch = right_pad(rows, self._pad_id, self._device)
        states_RTH = self._read(self._model(input_ids=batch.ids, use_cache=False))
        row = iter(states_RTH)
        for group in groups:
            first = len(group.prompt_ids) - 1
            yield [next(row)[first : first + len(c.token_ids)] for c in group.completions]

    def _shared(self, groups: Sequence[ScoreGroup]) -> Iterator[list[Tensor]]:
        """Prompts into a cache, the cache out to the completions, the completions on top of it."""
        cache = DynamicCache(config=self._model.config)
        prompts = left_pad([g.prompt_ids for g in groups], self._pad_id, self._device)
        before_RTH = self._forward(prompts.ids, prompts.positions, prompts.attention_mask, cache)[:, -1:]
        rest = [(i, c.token_ids[:-1]) for i, g in enumerate(groups) for c in g.completions if len(c.token_ids) > 1]
        after = iter(self._continue(cache, prompts.mask, rest) if rest else ())
        for i, group in enumerate(groups):
            longer = (len(c.token_ids) - 1 for c in group.completions)
            yield [torch.cat([before_RTH[i], next(after)[:n]]) if n else before_RTH[i] for n in longer]

    def _continue(self, cache: Any, mask_RT: Tensor, rest: list[tuple[int, Any]]) -> Tensor:
        owner_R = torch.tensor([i for i, _ in rest], device=self._device)
        cache.reorder_cache(owner_R)
        batch = right_pad([ids for _, ids in rest], self._pad_id, self._device)
        mask_RT = mask_RT[owner_R]
        positions_RT = batch.positions + mask_RT.sum(1, keepdim=True)
        return self._forward(batch.ids, positions_RT, torch.cat([mask_RT, torch.ones_like(batch.ids)], 1), cache)

    def _forward(self, ids_RT: Tensor, positions_RT: Tensor, mask: Tensor | None, cache: Any) -> Tensor:
        positions = {"position_ids": positions_RT} if self._takes_positions else {}
        output = self._model(input_ids=ids_RT, attention_mask=mask, past_key_values=cache, use_cache=True, **positions)
        return self._read(output)


def shares_prompts(model: Any, read: Callable[[Any], Tensor], pad_id: int) -> bool:
    """Whether a shared prompt gives the states of whole sequences, tried on a probe with unequal lengths."""
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        return False
    one, two = ([1], [1, 2, 3]), ([2, 1, 3, 1], [3, 3])
    probe = [
        ScoreGroup.model_validate({"prompt_ids": prompt, "completions": [{"token_ids": ids} for ids in completions]})
        for prompt, completions in (([1, 2, 3, 1, 2], one), ([2, 1], two))
    ]
    whole_NH, shared_NH = (
        Encoder(model, read, pad_id, shares=shares).states(probe).float() for shares in (False, True)
    )
    return bool((whole_NH - shared_NH).abs().max() <= 0.05 * whole_NH.abs().max())


def _alike(members: Sequence[int], lengths: Sequence[int]) -> Iterator[list[int]]:
    """Batches of members in which none is padded to more than twice its length, if it is longer than SHORT."""
    ordered = sorted(zip(lengths, members, strict=True), reverse=True)
    while ordered:
        limit = max(ordered[0][0], SHORT)
        batch = [member for length, member in ordered if 2 * max(length, SHORT) >= limit]
        yield batch
        ordered = ordered[len(batch) :]
