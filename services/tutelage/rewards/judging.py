"""Questions to a judge with answers in one fixed form: read strictly, asked once more where the form is not kept."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.rewards.fence import new_nonce
from tutelage_client.errors import TutelageError
from tutelage_client.wire import GenerateRequest, Generation, Usage

Messages = list[dict[str, Any]]
Question = Callable[[str], Messages]  # from the nonce of its fences
Ask = Callable[[GenerateRequest], Awaitable[tuple[list[list[Generation]], Usage]]]
_ATTEMPTS = 2
_SHOWN = 80


class NotTaken(TutelageError):
    """One of the questions that were asked together is not taken at all, such as one that is too long."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said. answer: the part of the form that it filled in, None where it did not, for `reason`

    final: to ask again would not help
    """

    answer: str | None
    reason: str = ""
    final: bool = False


async def verdicts(
    ask: Ask, questions: Sequence[Question], form: re.Pattern[str], max_tokens: int
) -> tuple[list[Verdict], Usage]:
    """One verdict a question, in order. form: the whole answer, white space around it aside; its group is the verdict

    A question that the judge does not take has no answer, and the others stand.

    Raises:
        TutelageError: the judge could not be asked.
    """
    found: dict[int, Verdict] = {}
    usage = Usage()
    for _ in range(_ATTEMPTS):
        open_ones = [i for i in range(len(questions)) if i not in found or not found[i].final]
        if not open_ones:
            break
        prompts: list[Any] = [questions[i](new_nonce()) for i in open_ones]
        request = GenerateRequest(prompts=prompts, max_tokens=max_tokens, temperature=0.0)
        said, spent = await _asked(ask, request, form)
        usage += spent
        found |= dict(zip(open_ones, said, strict=True))
    return [found[i] for i in range(len(questions))], usage


async def _asked(ask: Ask, request: GenerateRequest, form: re.Pattern[str]) -> tuple[list[Verdict], Usage]:
    """All questions at once; where one is not taken, each half, until it is alone."""
    try:
        generations, usage = await ask(request)
    except NotTaken as error:
        if len(request.prompts) == 1:
            return [Verdict(None, f"the judge did not take the question: {error}", final=True)], Usage()
        middle = len(request.prompts) // 2
        parts = (request.prompts[:middle], request.prompts[middle:])
        halves = [request.model_copy(update={"prompts": part}) for part in parts]
        (first, spent), (second, more) = [await _asked(ask, half, form) for half in halves]
        return first + second, spent + more
    return [_read(one, form) for (one,) in generations], usage


def _read(answer: Generation, form: re.Pattern[str]) -> Verdict:
    if answer.finish_reason == "refused":
        return Verdict(None, "the judge refused to answer")
    if answer.finish_reason == "length":
        return Verdict(None, "the judge's answer was cut off; max_tokens bounds it")
    match = form.fullmatch(answer.text.strip())
    if match is None:
        return Verdict(None, f"the judge did not answer in the form {form.pattern!r}: {answer.text[:_SHOWN]!r}")
    return Verdict(match[1], final=True)
