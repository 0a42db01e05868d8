"""Text of a model from prompts in token ids: sampling, decoding and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tutelage.engines.sampling import Sampled, sample
from tutelage_client.wire import GenerateRequest, Generation, Usage

MAX_ROWS = 256


def write_texts(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], request: GenerateRequest, end_ids: frozenset[int]
) -> tuple[list[list[Generation]], Usage]:
    """`request.n` texts after each prompt.

    Stop strings are looked for once a text is finished: what the model wrote after one is cut off, but was paid for.
    """
    generator = torch.Generator()
    if request.seed is None:
        generator.seed()
    else:
        generator.manual_seed(request.seed)
    repeated = [prompt for prompt in prompts for _ in range(request.n)]
    rows = sample(
        model,
        repeated,
        max_new_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        eos_ids=end_ids,
        pad_id=0,
        generator=generator,
        max_rows=MAX_ROWS,
    )
    by_index = {row.index: row for row in rows}
    texts = [_generation(tokenizer, by_index[i], request.stop, end_ids) for i in range(len(repeated))]
    generations = [texts[first : first + request.n] for first in range(0, len(texts), request.n)]
    return generations, _usage(repeated, sum(len(row.token_ids) for row in by_index.values()))


def _usage(prompts: Sequence[list[int]], generated: int) -> Usage:
    """Sampling encodes equal prompts of a wave once."""
    waves = [prompts[first : first + MAX_ROWS] for first in range(0, len(prompts), MAX_ROWS)]
    forward = sum(len(ids) for wave in waves for ids in {tuple(prompt) for prompt in wave})
    return Usage(forward_tokens=forward, cached_tokens=sum(map(len, prompts)) - forward, generated_tokens=generated)


def _generation(tokenizer: Any, row: Sampled, stops: Sequence[str], end_ids: frozenset[int]) -> Generation:
    token_ids, logprobs, reason = row.token_ids, row.logprobs, row.finish_reason
    text = _decode(tokenizer, token_ids, end_ids)
    stop_at = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
    if stop_at is not None:
        kept = _tokens_to_stop(tokenizer, token_ids, stops, end_ids)
        text, token_ids, logprobs, reason = text[:stop_at], token_ids[:kept], logprobs[:kept], "stop"
    return Generation(text=text, token_ids=token_ids, logprobs=logprobs, finish_reason=reason)


def _tokens_to_stop(tokenizer: Any, token_ids: list[int], stops: Sequence[str], end_ids: frozenset[int]) -> int:
    """How many tokens it takes until the first stop string is complete."""
    for count in range(1, len(token_ids)):
        text = _decode(tokenizer, token_ids[:count], end_ids)
        if any(stop in text for stop in stops):
            return count
    return len(token_ids)


def _decode(tokenizer: Any, token_ids: list[int], end_ids: frozenset[int]) -> str:
    shown = token_ids[:-1] if token_ids and token_ids[-1] in end_ids else token_ids
    return tokenizer.decode(shown, skip_special_tokens=True)
