"""What a language model's text is worth, measured from outside a run: closeness to the teacher, variety, length.

A student writes at temperature 1; at every token of that text both models' whole distributions are compared. Models are
directories and computed in float32. Shapes: N tokens of all texts, R rows of a chunk, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutelage.core.batch import at_tokens
from tutelage.core.divergences import forward_kl, reverse_kl
from tutelage.engines.encoding import Encoder
from tutelage.engines.head import Head, proven_head
from tutelage.engines.loading import load_model, pick_device
from tutelage.engines.sampling import sample
from tutelage.engines.tokenizer import encode_prompt, eos_ids, load_tokenizer
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Prompt, ScoreGroup

CHUNK_ROWS = 256
PROMPTS_AT_ONCE = 32
REPEATED_N = 4

Ids = list[int]
Advance = Callable[[int], object]


@dataclass(frozen=True)
class Closeness:
    """Means per token. reverse_kl: KL(p || q), forward_kl: KL(q || p), over the whole vocabulary, in nats.

    teacher_logprob: the teacher's log-probability of the token that was written
    """

    reverse_kl: float
    forward_kl: float
    teacher_logprob: float


@dataclass(frozen=True)
class Variety:
    """distinct_N: different N-grams of all texts over their number; length: mean tokens.

    repetition: share of a text's 4-grams that occurred before in the same text
    """

    distinct_1: float
    distinct_2: float
    repetition: float
    length: float


@dataclass(frozen=True)
class LanguageModel:
    """A model of a directory with what is needed to write and to compare."""

    network: Any
    tokenizer: Any
    head: Head

    @property
    def eos_ids(self) -> frozenset[int]:
        return eos_ids(self.network, self.tokenizer)

    def text(self, ids: Ids) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


def open_model(folder: Path) -> LanguageModel:
    """The model in a directory, in float32.

    Raises:
        InvalidInput: no model or tokenizer there, or logits that are not those of a linear head.
    """
    network = load_model(str(folder), None, "float32", pick_device("auto"))
    head = proven_head(network)
    if head is None:
        raise InvalidInput(f"the logits of {folder} cannot be rebuilt from its hidden states; measure another model")
    return LanguageModel(network, load_tokenizer(folder), head)


def encoded(model: LanguageModel, prompts: Sequence[Prompt]) -> list[Ids]:
    return [encode_prompt(model.tokenizer, prompt) for prompt in prompts]


def write(
    model: LanguageModel, prompts: Sequence[Ids], max_new_tokens: int, seed: int, advance: Advance = lambda _: None
) -> list[Ids]:
    """One text of the model after each prompt, drawn at temperature 1; equal seeds give equal draws."""
    texts: list[Ids] = [[] for _ in prompts]
    rows = sample(
        model.network,
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        eos_ids=model.eos_ids,
        pad_id=min(model.eos_ids),
        generator=torch.Generator(pick_device("auto")).manual_seed(seed),
        max_rows=PROMPTS_AT_ONCE,
    )
    for row in rows:
        texts[row.index] = row.token_ids
        advance(1)
    return texts


@torch.inference_mode()
def closeness(
    student: LanguageModel,
    teacher: LanguageModel,
    prompts: Sequence[Ids],
    texts: Sequence[Ids],
    advance: Advance = lambda _: None,
) -> Closeness:
    """Student against teacher at every token of the texts, in float32, a few prompts and rows at a time."""
    sums = torch.zeros(3, dtype=torch.float64)
    for groups, ids_N in _parts(prompts, texts):
        for measured_R3 in _compared(student, teacher, groups, ids_N):
            sums += measured_R3.double().sum(0).cpu()
        advance(len(groups))
    return Closeness(*(sums / sum(map(len, texts))).tolist())


@torch.inference_mode()
def logprob(
    model: LanguageModel, prompts: Sequence[Ids], texts: Sequence[Ids], advance: Advance = lambda _: None
) -> float:
    """The model's mean log-probability of the tokens of these texts, whoever wrote them."""
    total = 0.0
    for groups, ids_N in _parts(prompts, texts):
        states_NH = _states(model, groups)
        for rows in torch.arange(len(ids_N)).split(CHUNK_ROWS):
            logp_RV = model.head.logits(states_NH[rows]).log_softmax(-1)
            total += float(at_tokens(logp_RV, ids_N[rows, None].to(logp_RV.device)).double().sum())
        advance(len(groups))
    return total / sum(map(len, texts))


def _parts(prompts: Sequence[Ids], texts: Sequence[Ids]) -> Iterator[tuple[list[ScoreGroup], Tensor]]:
    """A few prompts at a time with the ids [N] of their texts."""
    for first in range(0, len(prompts), PROMPTS_AT_ONCE):
        part = slice(first, first + PROMPTS_AT_ONCE)
        groups = [_group(prompt, text) for prompt, text in zip(prompts[part], texts[part], strict=True)]
        yield groups, torch.tensor([token for text in texts[part] for token in text])


def _compared(
    student: LanguageModel, teacher: LanguageModel, groups: Sequence[ScoreGroup], ids_N: Tensor
) -> Iterator[Tensor]:
    """reverse KL, forward KL and the teacher's log-probability of each row [R, 3], chunk by chunk."""
    student_NH, teacher_NH = (_states(model, groups) for model in (student, teacher))
    for rows in torch.arange(len(ids_N)).split(CHUNK_ROWS):
        student_logp_RV = student.head.logits(student_NH[rows]).log_softmax(-1)
        teacher_logp_RV = teacher.head.logits(teacher_NH[rows]).log_softmax(-1)
        ids_R1 = ids_N[rows, None].to(teacher_logp_RV.device)
        columns = (
            reverse_kl(student_logp_RV, teacher_logp_RV),
            forward_kl(student_logp_RV, teacher_logp_RV),
            at_tokens(teacher_logp_RV, ids_R1)[:, 0],
        )
        yield torch.stack(columns, dim=-1)


def _states(model: LanguageModel, groups: Sequence[ScoreGroup]) -> Tensor:
    """The hidden state before every written token [N, H]."""
    encoder = Encoder(model.network.base_model, lambda output: output.last_hidden_state, 0, shares=False)
    return encoder.states(groups)


def _group(prompt: Ids, text: Ids) -> ScoreGroup:
    return ScoreGroup.model_validate({"prompt_ids": prompt, "completions": [{"token_ids": text}]})


def variety(texts: Sequence[Sequence[int]]) -> Variety:
    """How varied the texts are, and how long."""
    return Variety(
        distinct_1=_distinct(texts, 1),
        distinct_2=_distinct(texts, 2),
        repetition=repetition(texts),
        length=sum(map(len, texts)) / len(texts),
    )


def repetition(texts: Sequence[Sequence[int]]) -> float:
    """Share of all 4-grams that occurred before in the same text; 0 where no text is that long."""
    counts = [Counter(_ngrams(text, REPEATED_N)) for text in texts]
    total = sum(count.total() for count in counts)
    return sum(count.total() - len(count) for count in counts) / total if total else 0.0


def _distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    ngrams = [ngram for text in texts for ngram in _ngrams(text, n)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def _ngrams(text: Sequence[int], n: int) -> Iterator[tuple[int, ...]]:
    return zip(*(text[i:] for i in range(n)), strict=False)
