"""Sampling from a causal language model in batches that shrink: a row leaves batch and cache when it ends.

Used for a teacher's text and for the student's rollouts alike, hence the log-probabilities of the distribution that was
really drawn from. Only token ids are handled here. Shapes: N rows of a wave, R rows that still run, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from tutelage.engines.padding import left_pad


@dataclass(frozen=True, slots=True)
class Sampled:
    """The continuation of prompt `index`. An end token that was drawn is the last of `token_ids`.

    logprobs: log mu of each token under what was sampled from: temperature and top_p applied. At temperature 0 nothing
    is drawn; the values are then those of the model at temperature 1.
    """

    index: int
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: Literal["stop", "length"]


@torch.inference_mode()  # as a decorator it is left at every yield, so it does not reach the consumer
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float = 1.0,
    eos_ids: frozenset[int],
    pad_id: int,
    generator: torch.Generator,
    max_rows: int = 256,
    places: Container[int] | None = None,
) -> Iterator[Sampled]:
    """One continuation of every prompt, each yielded the moment it ends; equal prompts are encoded once a wave.

    A row's draws depend on `generator` and its place alone, not on when other rows end. More than `max_rows` prompts
    run in waves of that size. `model` is a transformers decoder with a standard cache, or one wrapped by PEFT.

    places: the prompts that are continued, as they would be among all; the others are not looked at. None: every one

    Raises:
        ValueError: an empty prompt, or a model in training mode, where dropout would falsify the log-probabilities.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() before sampling from it")
    if not all(len(prompt) for place, prompt in enumerate(prompts) if places is None or place in places):
        raise ValueError("a prompt has no tokens; give at least one, such as the beginning-of-sequence token")
    decoder = _Decoder(model, pad_id)
    end_ids = torch.tensor(sorted(eos_ids), dtype=torch.long, device=decoder.device)
    for first in range(0, len(prompts), max_rows):
        draw = _Draw(temperature, top_p, generator)
        wave = prompts[first : first + max_rows]
        own = [row for row in range(len(wave)) if places is None or first + row in places]
        for index, token_ids, logprobs, stopped in _wave(decoder, wave, own, draw, end_ids, max_new_tokens):
            yield Sampled(first + index, token_ids, logprobs, "stop" if stopped else "length")


def _wave(
    decoder: _Decoder,
    prompts: Sequence[Sequence[int]],
    own: Sequence[int],
    draw: _Draw,
    end_ids: Tensor,
    max_new_tokens: int,
) -> Iterator[tuple[int, list[int], list[float], bool]]:
    """The `own` rows of one batch as they end: index, token ids, log-probs, whether an end token was drawn."""
    if not own:
        return
    ids_NT = torch.empty(len(prompts), max_new_tokens, dtype=torch.long, device=decoder.device)
    logprob_NT = torch.empty(len(prompts), max_new_tokens, device=decoder.device)
    running_R = torch.tensor(own, device=decoder.device)
    logits_RV = decoder.prefill([prompts[row] for row in own])
    for step in range(max_new_tokens):
        ids_R, logprob_R = draw(logits_RV, running_R, len(prompts))
        ids_NT[running_R, step] = ids_R
        logprob_NT[running_R, step] = logprob_R
        stopped_R = torch.isin(ids_R, end_ids)
        stopped = stopped_R.tolist()
        last = step + 1 == max_new_tokens
        if last or any(stopped):
            ended = running_R if last else running_R[stopped_R]
            reasons = stopped if last else [True] * len(ended)
            rows = zip(ended.tolist(), ids_NT[ended].tolist(), logprob_NT[ended].tolist(), reasons, strict=True)
            yield from ((i, ids[: step + 1], logprobs[: step + 1], end) for i, ids, logprobs, end in rows)
            if last or all(stopped):
                return
            kept = (~stopped_R).nonzero()[:, 0]
            running_R, ids_R = running_R[kept], ids_R[kept]
            decoder.keep(kept)
        logits_RV = decoder.step(ids_R)


class _Draw:
    """Draws a token a row by inverting its distribution at a uniform number.

    Every step takes one number for each of the N rows of the wave, ended or not, so that what a row draws does not
    depend on the others. The wave has a generator of its own, so that its length does not move the caller's.
    """

    def __init__(self, temperature: float, top_p: float, parent: torch.Generator) -> None:
        seed = torch.randint(2**62, (), generator=parent, device=parent.device)
        self._generator = torch.Generator(parent.device).manual_seed(int(seed))
        self._temperature = temperature
        self._top_p = top_p

    def __call__(self, logits_RV: Tensor, running_R: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Token ids [R] and their log-probs [R] under the distribution that was drawn from."""
        if self._temperature == 0:
            logprob_R, ids_R = logits_RV.float().log_softmax(-1).max(-1)
            return ids_R, logprob_R
        uniform_N = torch.rand(rows, dtype=torch.float64, generator=self._generator, device=self._generator.device)
        uniform_R1 = uniform_N.to(running_R.device)[running_R, None]
        logprob_RV = (logits_RV.float() / self._temperature).log_softmax(-1)
        if self._top_p == 1:
            return _invert(logprob_RV, uniform_R1)
        logprob_RV, order_RV = logprob_RV.sort(-1, descending=True)
        rank_R, logprob_R = _invert(_nucleus(logprob_RV, self._top_p), uniform_R1)
        return order_RV.gather(-1, rank_R[:, None])[:, 0], logprob_R


def _nucleus(logprob_RV: Tensor, top_p: float) -> Tensor:
    """Descending log-probs, renormalised over the shortest head that holds `top_p`; the first always stays."""
    probability_RV = logprob_RV.exp()
    before_RV = probability_RV.cumsum(-1) - probability_RV
    before_RV[:, 0] = 0
    return logprob_RV.masked_fill(before_RV >= top_p, -torch.inf).log_softmax(-1)


def _invert(logprob_RV: Tensor, uniform_R1: Tensor) -> tuple[Tensor, Tensor]:
    """The column whose stretch of the cumulative distribution holds the uniform number, and its log-prob."""
    cumulative_RV = logprob_RV.exp().cumsum(-1, dtype=torch.float64)
    # Scaled by the last entry, so that rounding of the sum gives no token more than its share. right=True: never one
    # of probability 0.
    column_R1 = torch.searchsorted(cumulative_RV, uniform_R1 * cumulative_RV[:, -1:], right=True)
    column_R1 = column_R1.clamp(max=logprob_RV.shape[-1] - 1)
    return column_R1[:, 0], logprob_RV.gather(-1, column_R1)[:, 0]


class _Decoder:
    """The model, its cache, and where each running row stands in it."""

    def __init__(self, model: Any, pad_id: int) -> None:
        # PEFT changes the layers inside; calling the wrapped model itself skips only the wrapper.
        self._model = model.get_base_model() if hasattr(model, "get_base_model") else model
        accepted = inspect.signature(self._model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self._takes_positions = "position_ids" in accepted
        self._pad_id = pad_id
        self.device = next(self._model.parameters()).device

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Encode the prompts into a fresh cache; logits [N, V] after each."""
        place = {}
        row_of_N = [place.setdefault(tuple(prompt), len(place)) for prompt in prompts]
        batch = left_pad(list(place), self._pad_id, self.device)
        self._cache: Any = DynamicCache(config=self._model.config)
        self._mask_RS = batch.attention_mask
        self._next_R = batch.lengths
        logits_RV = self._forward(batch.ids, batch.positions)
        if len(place) == len(prompts):
            return logits_RV
        rows = torch.tensor(row_of_N, device=self.device)
        self.keep(rows)
        return logits_RV[rows]

    def step(self, ids_R: Tensor) -> Tensor:
        """Feed one token a row; logits [R, V] after it."""
        positions_R1 = self._next_R[:, None]
        if self._mask_RS is not None:
            self._mask_RS = torch.nn.functional.pad(self._mask_RS, (0, 1), value=1)
        self._next_R = self._next_R + 1
        return self._forward(ids_R[:, None], positions_R1)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows of batch and cache alone, in this order; a row may be repeated."""
        self._cache.reorder_cache(rows)  # an index_select; batch_select_indices does the same several times slower
        self._next_R = self._next_R[rows]
        if self._mask_RS is not None:
            self._mask_RS = self._mask_RS[rows]

    def _forward(self, ids_RT: Tensor, positions_RT: Tensor) -> Tensor:
        positions = {"position_ids": positions_RT} if self._takes_positions else {}
        output = self._model(
            input_ids=ids_RT,
            attention_mask=self._mask_RS,
            past_key_values=self._cache,
            use_cache=True,
            **positions,
            **self._last_only,
        )
        return output.logits[:, -1]
