"""OpenAI's completions in terms of the scorer: what is written comes from `generate`, every log-prob from `score`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.engines import Tokenizer
from tutelage.engines.checks import check_ids
from tutelage.teacher.admission import CapabilityMissing
from tutelage.teacher.callers import Caller
from tutelage.teacher.columns import prompt_entries, text_logprobs
from tutelage.teacher.scorer import Scorer
from tutelage.teacher.spelling import Speller, offsets
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    Completion,
    CompletionsChoice,
    CompletionsRequest,
    CompletionsUsage,
    GenerateRequest,
    Generation,
    ScoreGroup,
    ScoreRequest,
    Signal,
    TokenScores,
)

NOTHING = Generation(text="", token_ids=[], finish_reason="length")


@dataclass(frozen=True, slots=True)
class Written:
    """A prompt and one of its continuations; scores of its tokens from `first` on, where they were asked for."""

    prompt_ids: list[int]
    generation: Generation
    scores: TokenScores | None = None

    @property
    def ids(self) -> list[int]:
        return [*self.prompt_ids, *(self.generation.token_ids or ())]


async def complete(
    teacher: Scorer, asked: CompletionsRequest, caller: Caller
) -> tuple[list[Written], CompletionsUsage]:
    """Write and score what was asked, prompt by prompt.

    Raises:
        CapabilityMissing, InvalidInput, RateLimited, BudgetSpent, BadScores, EngineFailed: as the scorer does.
    """
    tokenizer = teacher.engine.tokenizer
    if tokenizer is None:
        return await _texts_alone(teacher, asked, caller)
    _check_widths(asked, teacher)
    prompts = [_encoded(tokenizer, prompt, i) for i, prompt in enumerate(asked.prompt)]
    for i, ids in enumerate(prompts):
        check_ids(ids, teacher.engine.capabilities, f"prompt.{i}")
    generations = [[NOTHING] * asked.n for _ in prompts]
    if asked.max_tokens:
        generations = (await teacher.generate(_generate_request(asked, prompts), caller)).generations
    written = [Written(ids, one) for ids, row in zip(prompts, generations, strict=True) for one in row]
    tokens = sum(len(one.generation.token_ids or ()) for one in written)
    return await _scored(teacher, asked, written, caller), _usage(sum(map(len, prompts)), tokens)


def choices(
    asked: CompletionsRequest, written: Sequence[Written], tokenizer: Tokenizer | None
) -> Iterator[CompletionsChoice]:
    """The continuations as OpenAI writes them."""
    speller = None if tokenizer is None else Speller(tokenizer)
    for index, one in enumerate(written):
        reason = one.generation.finish_reason
        choice = CompletionsChoice(
            index=index,
            text=one.generation.text,
            finish_reason="content_filter" if reason == "refused" else reason,
            logprobs=None,
            prompt_logprobs=None,
            prompt_token_ids=one.prompt_ids if asked.return_token_ids else None,
            token_ids=one.generation.token_ids if asked.return_token_ids else None,
        )
        yield choice if speller is None else choice.model_copy(update=_spelt(asked, one, speller))


def _spelt(asked: CompletionsRequest, one: Written, speller: Speller) -> dict[str, object]:
    """Text with echo and log-probs of a choice. Shown are the tokens of the prompt with echo, and those written."""
    first = 0 if asked.echo else len(one.prompt_ids)
    ids = one.ids
    pieces = speller.pieces(ids[first:])
    shown = speller.shown(ids[first:], pieces)
    text = _cut("".join(shown), len(one.prompt_ids), shown, asked) if asked.echo else one.generation.text
    spelt: dict[str, object] = {"text": text}
    if asked.prompt_logprobs is not None:
        rows = prompt_entries(one.scores, one.prompt_ids, asked.prompt_logprobs, speller)
        spelt["prompt_logprobs"] = rows
    if asked.logprobs is not None:
        named = [f"token_id:{i}" for i in ids[first:]] if asked.return_tokens_as_token_ids else pieces
        name = None if asked.return_tokens_as_token_ids else speller.name
        columns = text_logprobs(one.scores, ids, first, named, asked.logprobs, name)
        spelt["logprobs"] = columns.model_copy(update={"text_offset": offsets(shown, text)})
    return spelt


def _cut(text: str, prompt_tokens: int, shown: Sequence[str], asked: CompletionsRequest) -> str:
    """An echoed text up to the first stop string behind its prompt."""
    prompt = len("".join(shown[:prompt_tokens]))
    return text[: min((at for stop in asked.stop if (at := text.find(stop, prompt)) >= 0), default=len(text))]


async def _scored(teacher: Scorer, asked: CompletionsRequest, written: list[Written], caller: Caller) -> list[Written]:
    """With scores, where any are asked for and there is a token that has something before it."""
    groups = [_group(asked, one) for one in written]
    ready = [group for group in groups if group is not None]
    if not asked.scores or not ready:
        return written
    most = max(asked.logprobs or 0, 0 if asked.prompt_logprobs is None else max(asked.prompt_logprobs, 1))
    signals = frozenset({Signal.SAMPLED, Signal.TOP_K} if most else {Signal.SAMPLED})
    request = ScoreRequest(sequences=tuple(ready), signals=signals, top_k=most or None)
    blocks = iter((await teacher.score(request, caller)).scores)
    return [
        one if group is None else Written(one.prompt_ids, one.generation, next(blocks))
        for one, group in zip(written, groups, strict=True)
    ]


def _group(asked: CompletionsRequest, one: Written) -> ScoreGroup | None:
    whole = asked.echo or asked.prompt_logprobs is not None
    start = 1 if whole else len(one.prompt_ids)
    ids = one.ids if asked.logprobs is not None else one.prompt_ids
    if start >= len(ids):
        return None
    completion = Completion(token_ids=np.array(ids[start:], dtype=np.int32))
    return ScoreGroup(prompt_ids=np.array(ids[:start], dtype=np.int32), completions=(completion,))


async def _texts_alone(
    teacher: Scorer, asked: CompletionsRequest, caller: Caller
) -> tuple[list[Written], CompletionsUsage]:
    """Texts of a model that takes text and has no tokens to show."""
    for field in ("logprobs", "prompt_logprobs", "echo", "return_token_ids"):
        if getattr(asked, field) not in (None, False):
            message = f"teacher {teacher.name!r} gives text alone: it has no tokens and no log-probs; leave {field} out"
            raise CapabilityMissing(message, field)
    reply = await teacher.generate(_generate_request(asked, asked.prompt), caller)
    usage = _usage(reply.usage.forward_tokens + reply.usage.cached_tokens, reply.usage.generated_tokens)
    return [Written([], one) for row in reply.generations for one in row], usage


def _generate_request(asked: CompletionsRequest, prompts: Sequence[str | list[int]]) -> GenerateRequest:
    return GenerateRequest(
        prompts=list(prompts),
        n=asked.n,
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        stop=asked.stop,
        seed=asked.seed,
    )


def _encoded(tokenizer: Tokenizer, prompt: str | list[int], i: int) -> list[int]:
    try:
        return tokenizer.encode(prompt)
    except InvalidInput as error:
        raise InvalidInput(error.message, f"prompt.{i}") from error


def _check_widths(asked: CompletionsRequest, teacher: Scorer) -> None:
    most = teacher.engine.capabilities.max_top_k
    for field in ("logprobs", "prompt_logprobs"):
        width = getattr(asked, field)
        if width is not None and width > most:
            raise InvalidInput(f"{field} is {width}, this teacher gives at most {most}; ask for fewer", field)


def _usage(prompt_tokens: int, completion_tokens: int) -> CompletionsUsage:
    return CompletionsUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )
