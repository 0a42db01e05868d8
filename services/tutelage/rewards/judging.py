"""Questions to a judge with answers in one fixed form: read strictly, asked once more where the form is not kept."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.rewards.fence import new_nonce
from tutelage_client.wire import GenerateRequest, Generation, Usage

Messages = list[dict[str, Any]]
Question = Callable[[str], Messages]  # from the nonce of its fences
Ask = Callable[[GenerateRequest], Awaitable[tuple[list[list[Generation]], Usage]]]
_ATTEMPTS = 2
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said. answer: the part of the form that it filled in, None where it did not, for `reason`"""

    answer: str | None
    reason: str = ""


async def verdicts(
    ask: Ask, questions: Sequence[Question], form: re.Pattern[str], max_tokens: int
) -> tuple[list[Verdict], Usage]:
    """One verdict a question, in order. form: the whole answer, white space around it aside; its group is the verdict

    Raises:
        TutelageError: the judge could not be asked.
    """
    found: dict[int, Verdict] = {}
    usage = Usage()
    for _ in range(_ATTEMPTS):
        open_ones = [i for i in range(len(questions)) if i not in found or found[i].answer is None]
        if not open_ones:
            break
        prompts: list[Any] = [questions[i](new_nonce()) for i in open_ones]
        generations, spent = await ask(GenerateRequest(prompts=prompts, max_tokens=max_tokens, temperature=0.0))
        usage += spent
        found |= {i: _read(one, form) for i, (one,) in zip(open_ones, generations, strict=True)}
    return [found[i] for i in range(len(questions))], usage


def _read(answer: Generation, form: re.Pattern[str]) -> Verdict:
    if answer.finish_reason == "refused":
        return Verdict(None, "the judge refused to answer")
    if answer.finish_reason == "length":
        return Verdict(None, "the judge's answer was cut off; max_tokens bounds it")
    match = form.fullmatch(answer.text.strip())
    if match is None:
        return Verdict(None, f"the judge did not answer in the form {form.pattern!r}: {answer.text[:_SHOWN]!r}")
    return Verdict(match[1])
