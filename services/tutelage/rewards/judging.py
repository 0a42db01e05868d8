"""Questions to a judge with answers in one fixed form: read strictly, asked once more where the form is not kept."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.rewards.fence import new_nonce
from tutelage_client.errors import TutelageError
from tutelage_client.wire import Generation, Usage

Messages = list[dict[str, Any]]
Question = Callable[[str], Messages]  # from the nonce of its fences
Answer = Generation | TutelageError  # to one question: a text, or why there is none
Ask = Callable[[Sequence[Messages], int], Awaitable[tuple[list[Answer], Usage]]]  # in at most so many tokens each
_SHOWN = 80


class NotTaken(TutelageError):
    """A question that is not taken at all, such as one that is too long."""


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

    A question that the judge does not answer has no verdict, and the others stand. None that it answered well is asked
    again.

    Raises:
        TutelageError: the judge could not be asked, or answered nothing at all.
    """
    if not questions:
        return [], Usage()
    said, usage = await ask([question(new_nonce()) for question in questions], max_tokens)
    _check_there(said)
    found = [_read(answer, form) for answer in said]
    open_ones = [i for i, verdict in enumerate(found) if not verdict.final]
    if not open_ones:
        return found, usage
    try:
        said, spent = await ask([questions[i](new_nonce()) for i in open_ones], max_tokens)
    except TutelageError:  # such as a budget that is spent by now
        return found, usage
    for i, answer in zip(open_ones, said, strict=True):
        found[i] = _read(answer, form)
    return found, usage + spent


def _check_there(said: Sequence[Answer]) -> None:
    """Raise why there is no answer where there is none to any question, unless the questions themselves are why."""
    failures = [one for one in said if isinstance(one, TutelageError) and not isinstance(one, NotTaken)]
    if failures and not any(isinstance(one, Generation) for one in said):
        raise failures[0]


def _read(answer: Answer, form: re.Pattern[str]) -> Verdict:
    if isinstance(answer, NotTaken):
        return Verdict(None, f"the judge did not take the question: {answer}", final=True)
    if isinstance(answer, TutelageError):
        return Verdict(None, f"the judge gave no answer: {answer}")
    if answer.finish_reason == "refused":
        return Verdict(None, "the judge refused to answer")
    if answer.finish_reason == "length":
        return Verdict(None, "the judge's answer was cut off; max_tokens bounds it")
    match = form.fullmatch(answer.text.strip())
    if match is None:
        return Verdict(None, f"the judge did not answer in the form {form.pattern!r}: {answer.text[:_SHOWN]!r}")
    return Verdict(match[1], final=True)
