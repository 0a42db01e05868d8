"""Any causal language model of the transformers library as a teacher, on a CPU or a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from tutelage.engines.checks import check_groups, check_ids, check_length, score_usage
from tutelage.engines.encoding import Encoder, shares_prompts
from tutelage.engines.head import Head, proven_head
from tutelage.engines.loading import load_model, pick_device, provenance_of
from tutelage.engines.options import HfOptions
from tutelage.engines.signals import Question, answer
from tutelage.engines.texts import write_texts
from tutelage.engines.tokenizer import ModelTokenizer, encode_prompt, eos_ids, load_tokenizer
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    Capabilities,
    EntryDtype,
    GenerateRequest,
    Generation,
    Provenance,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)

MAX_TOP_K = 4096


def open_hf(options: HfOptions, name: str) -> HfEngine:
    """The engine of a directory or hub id, speaking as teacher `name`.

    Raises:
        InvalidInput: no such model, no safetensors weights, no tokenizer, no such device.
    """
    model = load_model(options.model, options.revision, options.dtype, pick_device(options.device))
    tokenizer = load_tokenizer(options.model, options.revision)
    return HfEngine(model, tokenizer, provenance_of(options, name, model, tokenizer), options.logit_tile_bytes)


class HfEngine:
    """A loaded model behind the contract of `base.Engine`. Model work runs in a thread.

    Hidden states leave it only if its head is proven (see `head`); else the model computes its own logits, one sequence
    at a time, and no prompt is shared.
    """

    calls_at_once = 1

    def __init__(self, model: Any, tokenizer: Any, provenance: Provenance, logit_tile_bytes: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._head = proven_head(model)
        self._encoder = _encoder(model, self._head is not None)
        self.tokenizer = ModelTokenizer(tokenizer)
        self.provenance = provenance
        self.capabilities = _capabilities(model, tokenizer, self._head)
        self._chunk_rows = max(1, logit_tile_bytes // (4 * model.config.get_text_config(decoder=True).vocab_size))

    async def connect(self) -> dict[str, Any]:
        """There is nothing to reach."""
        return {}

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        """Exact scores of all groups as one batch."""
        check_groups(groups, self.capabilities)
        blocks = await asyncio.to_thread(self._score, groups, signals, top_k)
        return blocks, score_usage(groups, shared=self._encoder.shares)

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        """Samples of the model; a text ends at an end token, at a stop string or at `max_tokens`."""
        prompts = [encode_prompt(self._tokenizer, prompt) for prompt in request.prompts]
        for i, ids in enumerate(prompts):
            check_ids(ids, self.capabilities, f"prompts.{i}")
            check_length(len(ids) + request.max_tokens, self.capabilities, f"prompts.{i} with max_tokens")
        end_ids = frozenset(self.capabilities.eos_ids)
        return await asyncio.to_thread(write_texts, self._model, self._tokenizer, prompts, request, end_ids)

    def head(self) -> dict[str, NDArray[Any]]:
        """The proven output head, see `base.Engine.head`."""
        if self._head is None:
            raise InvalidInput("this model's logits cannot be rebuilt from its hidden states; ask for top_k instead")
        return self._head.arrays()

    async def close(self) -> None:
        """Nothing is held but the weights, which go with the last reference."""

    @torch.inference_mode()
    def _score(self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None) -> list[TokenScores]:
        if self._head is not None:
            states_NH = self._encoder.states(groups)
            return answer(Question(groups, signals, top_k), states_NH, self._head.logits, self._chunk_rows)
        single = [[g.model_copy(update={"completions": (c,)})] for g in groups for c in g.completions]
        return [block for one in single for block in self._score_by_own_logits(Question(one, signals, top_k))]

    def _score_by_own_logits(self, question: Question) -> list[TokenScores]:
        logits_NV = self._encoder.states(question.groups)
        return answer(question, logits_NV, torch.clone, self._chunk_rows)


def _encoder(model: Any, proven: bool) -> Encoder:
    """Reads hidden states where the head is proven, else the model's own logits. 0 pads: it is always an id."""
    if not proven:
        return Encoder(model, lambda output: output.logits, 0, shares=False)
    base = model.base_model
    with torch.inference_mode():
        shares = shares_prompts(base, _last_hidden, 0)
    return Encoder(base, _last_hidden, 0, shares=shares)


def _last_hidden(output: Any) -> Tensor:
    return output.last_hidden_state


def _capabilities(model: Any, tokenizer: Any, head: Head | None) -> Capabilities:
    config = model.config.get_text_config(decoder=True)
    signals = frozenset(Signal) if head else frozenset(Signal) - {Signal.HIDDEN}
    return Capabilities(
        signals=signals,
        max_top_k=min(config.vocab_size, MAX_TOP_K),
        # Models without a table of positions, such as those with ALiBi, name no length; their tokenizer does.
        max_length=getattr(config, "max_position_embeddings", None) or min(tokenizer.model_max_length, 2**20),
        vocabulary_size=config.vocab_size,
        eos_ids=tuple(sorted(eos_ids(model, tokenizer))),
        hidden_dtype=_narrowest(head.weight.dtype) if head else "float32",  # a proven head has that of its input
    )


def _narrowest(dtype: torch.dtype) -> EntryDtype:
    return "bfloat16" if dtype == torch.bfloat16 else "float16" if dtype == torch.float16 else "float32"
