"""A choice between two completions, asked in both orders, as judges favour a place."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tutelage.rewards.fence import RULES, fenced, prompt_text
from tutelage.rewards.judging import Ask, Messages, Question, Verdict, verdicts
from tutelage_client.wire import Pairwise, Reward, RewardItem, RewardRequest, Usage

Side = tuple[Literal["item", "reference"], int]  # whose text: the completion of an item, or its reference
Pair = tuple[Side, Side]
_FORM = re.compile("Better: (A|B|tie)")
_SWAPPED = {"A": "B", "B": "A", "tie": "tie"}
_VALUE = {"A": 1.0, "B": 0.0, "tie": 0.5}


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Of the first of a pair. value: None where the judge gave no usable answer, for `reason`"""

    value: float | None
    contradiction: bool = False
    reason: str = ""


async def pairwise_rewards(ask: Ask, request: RewardRequest) -> tuple[list[Reward], Usage]:
    """One reward an item, in order: the mean over its opponents of 1 for a win, 0.5 for a tie, 0 for a loss.

    Equal texts tie without being asked, and a pair that two items share is asked once.
    """
    reward = request.reward
    assert isinstance(reward, Pairwise)
    rivals = _references(request.items) if reward.against == "reference" else _groups(request.items, reward.opponents)
    pairs = sorted({_ordered(("item", i), rival) for i, others in enumerate(rivals) for rival in others})
    asked = [pair for pair in pairs if _text(request.items, pair[0]) != _text(request.items, pair[1])]
    questions = [_question(reward, request.items, each) for a, b in asked for each in ((a, b), (b, a))]
    said, usage = await verdicts(ask, questions, _FORM, reward.max_tokens)
    outcomes = {pair: _Outcome(0.5) for pair in pairs}
    outcomes |= {pair: _outcome(*said[2 * n : 2 * n + 2]) for n, pair in enumerate(asked)}
    return [_reward(reward, ("item", i), others, outcomes) for i, others in enumerate(rivals)], usage


def _references(items: Sequence[RewardItem]) -> list[list[Side]]:
    return [[("reference", i)] if item.reference is not None else [] for i, item in enumerate(items)]


def _groups(items: Sequence[RewardItem], opponents: int) -> list[list[Side]]:
    """Of each item the next ones with the same prompt, in a ring."""
    groups: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        groups.setdefault(json.dumps(item.prompt, sort_keys=True), []).append(i)
    rivals: list[list[Side]] = [[] for _ in items]
    for members in groups.values():
        for place, i in enumerate(members):
            ring = members[place + 1 :] + members[:place]
            rivals[i] = [("item", j) for j in ring[:opponents]]
    return rivals


def _outcome(straight: Verdict, swapped: Verdict) -> _Outcome:
    if straight.answer is None or swapped.answer is None:
        return _Outcome(None, reason=straight.reason or swapped.reason)
    if straight.answer != _SWAPPED[swapped.answer]:
        return _Outcome(0.5, contradiction=True)
    return _Outcome(_VALUE[straight.answer])


def _reward(reward: Pairwise, own: Side, rivals: Sequence[Side], outcomes: Mapping[Pair, _Outcome]) -> Reward:
    found = [outcomes[_ordered(own, rival)] for rival in rivals]
    values = [
        outcome.value if _ordered(own, rival)[0] == own else 1 - outcome.value
        for rival, outcome in zip(rivals, found, strict=True)
        if outcome.value is not None
    ]
    if not values:
        lone = "a reference" if reward.against == "reference" else "another completion of the same prompt"
        reason = found[0].reason if found else f"there is nothing to compare with; give {lone} in the request"
        return Reward(value=None, valid=False, detail={"reason": reason})
    detail = {
        "opponents": len(values),
        "contradictions": sum(outcome.contradiction for outcome in found),
        "unanswered": len(found) - len(values),
    }
    return Reward(value=sum(values) / len(values), valid=True, detail=detail)


def _ordered(one: Side, other: Side) -> Pair:
    return (one, other) if one < other else (other, one)


def _text(items: Sequence[RewardItem], side: Side) -> str:
    whose, i = side
    return items[i].completion if whose == "item" else items[i].reference or ""


def _question(reward: Pairwise, items: Sequence[RewardItem], pair: Pair) -> Question:
    first, second = pair
    parts = {"prompt": prompt_text(items[first[1]]), "A": _text(items, first), "B": _text(items, second)}

    def messages(nonce: str) -> Messages:
        asked = (
            f"{fenced(nonce, parts)}\n\nWhich is the better answer to the prompt, A or B, by this rubric?\n\n"
            f"{reward.rubric}\n\n"
            "Write one line and nothing else: the word Better, a colon, a space, and A, B or tie."
        )
        system = f"You compare two answers. {RULES.format(nonce=nonce)}"
        return [{"role": "system", "content": system}, {"role": "user", "content": asked}]

    return messages
