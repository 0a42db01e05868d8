"""Hidden states of the scored rows of a batch: a prompt that several completions share is encoded once.

A row's score needs the state before its token: the prompt's last token speaks of the first completion token, and the
last completion token is never fed. Shapes: R rows, T padded width, H hidden size (V where `model` returns logits).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from tutelage.engines.bucketing import buckets
from tutelage.engines.padding import Padded, left_pad, right_pad
from tutelage_client.wire import ScoreGroup

# Where a completion is: its group, and its number in there.
Place = tuple[int, int]


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
        places = [(i, j) for i, group in enumerate(groups) for j in range(len(group.completions))]
        shared = [i for i, group in enumerate(groups) if self.shares and len(group.completions) > 1]
        done = self._plain(groups, [place for place in places if place[0] not in set(shared)])
        for members in buckets([len(groups[i].prompt_ids) for i in shared]):
            done |= self._shared(groups, [shared[m] for m in members])
        return torch.cat([done[place] for place in places])

    def _plain(self, groups: Sequence[ScoreGroup], places: Sequence[Place]) -> dict[Place, Tensor]:
        """Whole sequences, padded on the right: causal attention never sees that padding, so no mask is needed."""
        rows = [np.concatenate([groups[i].prompt_ids, groups[i].completions[j].token_ids[:-1]]) for i, j in places]
        done: dict[Place, Tensor] = {}
        for members in buckets([len(row) for row in rows]):
            batch = right_pad([rows[m] for m in members], self._pad_id, self._device)
            states_RTH = self._read(self._model(input_ids=batch.ids, use_cache=False))
            for m, states_TH in zip(members, states_RTH, strict=True):
                first = len(groups[places[m][0]].prompt_ids) - 1
                done[places[m]] = states_TH[first : len(rows[m])]
        return done

    def _shared(self, groups: Sequence[ScoreGroup], members: Sequence[int]) -> dict[Place, Tensor]:
        """Prompts into a cache, the cache out to the completions, the completions on top of it."""
        cache = DynamicCache(config=self._model.config)
        prompts = left_pad([groups[i].prompt_ids for i in members], self._pad_id, self._device)
        before_R1H = self._forward(prompts.ids, prompts.positions, prompts.attention_mask, cache)[:, -1:]
        rows = [(row, (i, j)) for row, i in enumerate(members) for j in range(len(groups[i].completions))]
        done = {place: before_R1H[row] for row, place in rows}
        longer = [(row, place, groups[place[0]].completions[place[1]].token_ids[:-1]) for row, place in rows]
        longer = [each for each in longer if len(each[2])]
        for batch in buckets([len(ids) for _, _, ids in longer], cached=prompts.ids.shape[1]):
            owners, places, ids = zip(*(longer[b] for b in batch), strict=True)
            for place, after_TH, fed in zip(places, self._continue(cache, prompts, owners, ids), ids, strict=True):
                done[place] = torch.cat([done[place], after_TH[: len(fed)]])
        return done

    def _continue(self, cache: Any, prompts: Padded, owners: Sequence[int], ids: Sequence[Any]) -> Tensor:
        """States [R, T, H] of rows on top of the prompts that `owners` names in the cache, which stays as it is."""
        owner_R = torch.tensor(owners, device=self._device)
        batch = right_pad(ids, self._pad_id, self._device)
        positions_RT = batch.positions + prompts.lengths[owner_R, None]
        mask = None if prompts.even else torch.cat([prompts.mask[owner_R], torch.ones_like(batch.ids)], 1)
        return self._forward(batch.ids, positions_RT, mask, _rows_of(cache, owner_R))

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


def _rows_of(cache: Any, owner_R: Tensor) -> Any:
    """A cache of these rows. Layers replace their tensors when rows are picked or added, so shallow copies do."""
    picked = copy.copy(cache)
    picked.layers = [copy.copy(layer) for layer in cache.layers]
    picked.reorder_cache(owner_R)
    return picked
