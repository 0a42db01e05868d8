"""A student as it writes: it samples, and says how probable it held what it wrote."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tutelage.engines.head import Head
from tutelage.engines.sampling import Sampled, sample
from tutelage.engines.tokenizer import eos_ids, piece
from tutelage_client.spec import RolloutSpec, RunSpec
from tutelage_client.wire import Rollout


class Writer:
    """A causal language model that writes. `step`: the optimiser steps behind its weights, the version of its text.

    model: a transformers model, or one wrapped by PEFT; head: its output head
    """

    def __init__(self, model: Any, head: Head, tokenizer: PreTrainedTokenizerBase, spec: RunSpec) -> None:
        self.model = model
        self.head = head
        self.tokenizer = tokenizer
        self.eos_ids = eos_ids(inner(model), tokenizer)
        self.spec = spec
        self.step = 0
        self.device = next(model.parameters()).device

    def follow(self) -> None:
        """Take up the newest weights before a step is written. A student that writes itself has them."""

    @property
    def max_length(self) -> int:
        """Context length in tokens."""
        return context_length(self.model)

    @property
    def vocabulary_size(self) -> int:
        """Entries of its output head."""
        return len(self.head.weight)

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else min(self.eos_ids)

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        settings: RolloutSpec,
        generator: torch.Generator,
        places: Container[int] | None = None,
    ) -> Iterator[Sampled]:
        """Continue the prompts, or those at `places`; each row comes the moment it ends."""
        self.model.eval()
        rows = sample(
            self.model,
            prompts,
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            eos_ids=self.eos_ids,
            pad_id=self.pad_id,
            generator=generator,
            places=places,
        )
        with self._precision():
            yield from rows

    def text(self, token_ids: Sequence[int]) -> str:
        return cast(str, self.tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def pieces(self, token_ids: Iterable[int]) -> dict[int, str]:
        """Each token as it reads alone; a part of a character is U+FFFD, an id without a token is left out."""
        known = [token_id for token_id in token_ids if 0 <= token_id < len(self.tokenizer)]
        return {token_id: piece(self.tokenizer, token_id) for token_id in known}

    def special_ids(self, *, keep_eos: bool) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids) - (self.eos_ids if keep_eos else frozenset())

    @torch.inference_mode()
    def top_ids(self, rollout: Rollout, k: int) -> NDArray[np.int32]:
        """The student's k most probable tokens before each completion token [rows, k]."""
        logits_RV = self._logits(rollout)
        return logits_RV.topk(min(k, logits_RV.shape[-1]), dim=-1).indices.int().cpu().numpy()

    @torch.inference_mode()
    def logprobs(self, rollout: Rollout) -> NDArray[np.float32]:
        """log p of each completion token [rows]."""
        ids_R1 = torch.from_numpy(rollout.completion_ids).long().to(self.device)[:, None]
        return self._logits(rollout).float().log_softmax(-1).gather(-1, ids_R1)[:, 0].cpu().numpy()

    def _logits(self, rollout: Rollout) -> Tensor:
        """Before each completion token [rows, V]."""
        self.model.eval()
        start, rows = len(rollout.prompt_ids), len(rollout.completion_ids)
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.completion_ids])).long()[None]
        with self._precision():
            hidden_BTH = hidden_states(self.model, ids.to(self.device), None)
            return self.head.logits(hidden_BTH[0, start - 1 : start - 1 + rows])

    def _precision(self) -> AbstractContextManager[Any]:
        if self.spec.student.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def hidden_states(model: Any, ids_BT: Tensor, attention_mask_BT: Tensor | None) -> Tensor:
    """Last hidden states [B, T, H] after the final norm."""
    decoder = inner(model).base_model
    return decoder(input_ids=ids_BT, attention_mask=attention_mask_BT, use_cache=False).last_hidden_state


def context_length(model: Any) -> int:
    """In tokens."""
    return int(model.config.get_text_config(decoder=True).max_position_embeddings)


def inner(model: Any) -> Any:
    """The transformers model, which PEFT changes in place and wraps."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
