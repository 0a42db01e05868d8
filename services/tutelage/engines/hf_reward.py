"""A reward model of the transformers library: one logit for a prompt and its completion, in its chat template.

Shapes: R rows, C outputs of the model.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from tutelage.engines.bucketing import buckets
from tutelage.engines.loading import load_model, pick_device, provenance_of
from tutelage.engines.options import HfRewardOptions
from tutelage.engines.padding import right_pad
from tutelage.engines.tokenizer import ModelTokenizer, first_line, load_tokenizer
from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire import (
    Capabilities,
    GenerateRequest,
    Generation,
    Provenance,
    RewardItem,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)

_PADDING_GAP = 0.05  # of a logit, relative to its size where that is over 1; half precision rounds


def open_hf_reward(options: HfRewardOptions, name: str) -> HfRewardEngine:
    """The engine of a directory or hub id, speaking as teacher `name`.

    Raises:
        InvalidInput: no such model, label or device, several outputs and no label, or no chat template.
    """
    device = pick_device(options.device)
    model = load_model(options.model, options.revision, options.dtype, device, kind=AutoModelForSequenceClassification)
    tokenizer = load_tokenizer(options.model, options.revision)
    if not tokenizer.chat_template:
        message = f"the tokenizer of {options.model} has no chat template, so no text is known to be what it judges"
        raise InvalidInput(f"{message}; save one there with the template that it was trained with", "model")
    provenance = provenance_of(options, name, model, tokenizer)
    return HfRewardEngine(model, tokenizer, provenance, _output(model.config, options.label))


class HfRewardEngine:
    """A loaded model behind the contract of `base.RewardEngine`. output: which of its logits counts"""

    calls_at_once = 1

    def __init__(self, model: Any, tokenizer: Any, provenance: Provenance, output: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._output = output
        self._device = next(model.parameters()).device
        # Such a model finds the end of a row by its padding. Without one in either, rows go alone.
        pad_id = model.config.pad_token_id if model.config.pad_token_id is not None else tokenizer.pad_token_id
        model.config.pad_token_id = self._pad_id = pad_id
        self.tokenizer = ModelTokenizer(tokenizer)
        self.provenance = provenance
        self.capabilities = Capabilities(
            signals=frozenset(),
            max_top_k=0,
            max_length=getattr(model.config, "max_position_embeddings", None) or min(tokenizer.model_max_length, 2**20),
            vocabulary_size=model.config.vocab_size,
            covers_candidates=False,
            generates=False,
            rewards=frozenset({"reward_model"}),
        )

    async def connect(self) -> dict[str, Any]:
        """Value two rows together and alone, which must agree.

        Raises:
            BadScores: padding changes a value, or a value is no number.
        """
        rows = [self.row(RewardItem(prompt="Say yes.", completion=text)) for text in ("Yes.", "No, not that, never.")]
        together, _ = await self.reward(rows)
        alone = [(await self.reward([row]))[0][0] for row in rows]
        gap = max(abs(a - b) / max(1.0, abs(b)) for a, b in zip(together, alone, strict=True))
        if gap > _PADDING_GAP:
            raise BadScores(f"the start-up probe failed: a reward changes by {gap:.3g} with the rows beside it")
        return {"known_rewards": [round(value, 4) for value in alone], "worst_padding_gap": gap}

    def row(self, item: RewardItem) -> list[int]:
        """The chat of prompt and completion in token ids.

        Raises:
            InvalidInput: longer than the model reads, or the chat template refuses the messages.
        """
        asked = [{"role": "user", "content": item.prompt}] if isinstance(item.prompt, str) else list(item.prompt)
        messages = [*asked, {"role": "assistant", "content": item.completion}]
        try:
            ids: list[int] = self._tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
        except (TemplateError, ValueError, TypeError, KeyError) as error:
            raise InvalidInput(f"the chat template refuses the messages: {first_line(error)}", "items") from error
        if len(ids) > self.capabilities.max_length:
            message = f"the item has {len(ids)} tokens, the model reads at most {self.capabilities.max_length}"
            raise InvalidInput(f"{message}; shorten it", "items")
        return ids

    async def reward(self, rows: Sequence[list[int]]) -> tuple[list[float], Usage]:
        """The logit of each row, in batches of similar length."""
        values = await asyncio.to_thread(self._values, rows)
        if not all(map(math.isfinite, values)):
            raise BadScores("the reward model gave a value that is not finite")
        return values, Usage(forward_tokens=sum(map(len, rows)))

    async def score(
        self,
        groups: Sequence[ScoreGroup],  # noqa: ARG002 - the contract's
        signals: frozenset[Signal],  # noqa: ARG002
        top_k: int | None,  # noqa: ARG002
    ) -> tuple[list[TokenScores], Usage]:
        """Refused: there are no log-probs."""
        raise InvalidInput("a reward model has no log-probs of tokens", "signals")

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:  # noqa: ARG002
        """Refused: it does not write."""
        raise InvalidInput("a reward model writes no text", "prompts")

    def head(self) -> dict[str, NDArray[Any]]:
        """Refused: it has no output head."""
        raise InvalidInput("a reward model has no head over tokens")

    async def close(self) -> None:
        """Nothing is held but the weights, which go with the last reference."""

    @torch.inference_mode()
    def _values(self, rows: Sequence[list[int]]) -> list[float]:
        lengths = [len(row) for row in rows]
        batches = [[i] for i in range(len(rows))] if self._pad_id is None else buckets(lengths)
        values = [math.nan] * len(rows)
        for members in batches:
            batch = right_pad([rows[m] for m in members], self._pad_id or 0, self._device)
            logits_RC = self._model(input_ids=batch.ids, attention_mask=batch.mask).logits
            for m, value in zip(members, logits_RC[:, self._output].float().tolist(), strict=True):
                values[m] = value
        return values


def _output(config: Any, label: str | None) -> int:
    """Where the reward is among the model's outputs."""
    labels = {str(name): i for i, name in config.id2label.items()}
    if label is None and config.num_labels == 1:
        return 0
    known = ", ".join(labels)
    if label is None:
        raise InvalidInput(
            f"the model has {config.num_labels} outputs; name the one to use with label: {known}", "label"
        )
    if label not in labels:
        raise InvalidInput(f"the model has no label {label!r}; it has {known}", "label")
    return labels[label]
