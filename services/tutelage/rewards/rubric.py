"""A verbal score: the judge names a whole number for each completion."""

from __future__ import annotations

import re

from tutelage.rewards.fence import RULES, fenced, prompt_text
from tutelage.rewards.judging import Ask, Messages, Question, Verdict, verdicts
from tutelage_client.wire import Reward, RewardItem, RewardRequest, Rubric, Usage


async def rubric_rewards(ask: Ask, request: RewardRequest) -> tuple[list[Reward], Usage]:
    """One reward an item, in order: (score - lowest) / (highest - lowest)."""
    rubric = request.reward
    assert isinstance(rubric, Rubric)
    questions = [_question(rubric, item) for item in request.items]
    form = re.compile(f"Score: ([{rubric.lowest}-{rubric.highest}])", re.ASCII)
    said, usage = await verdicts(ask, questions, form, rubric.max_tokens)
    return [_reward(rubric, verdict) for verdict in said], usage


def _reward(rubric: Rubric, verdict: Verdict) -> Reward:
    if verdict.answer is None:
        return Reward(value=None, valid=False, detail={"reason": verdict.reason})
    score = int(verdict.answer)
    value = (score - rubric.lowest) / (rubric.highest - rubric.lowest)
    return Reward(value=value, valid=True, detail={"score": score})


def _question(rubric: Rubric, item: RewardItem) -> Question:
    parts = {"prompt": prompt_text(item), "answer": item.completion}
    if item.reference is not None:
        parts = {"prompt": prompt_text(item), "reference": item.reference, "answer": item.completion}

    def messages(nonce: str) -> Messages:
        asked = (
            f"{fenced(nonce, parts)}\n\nScore the answer to the prompt, from {rubric.lowest} (worst) to "
            f"{rubric.highest} (best), by this rubric:\n\n{rubric.rubric}\n\n"
            "Write one line and nothing else: the word Score, a colon, a space, and one digit."
        )
        system = f"You score answers. {RULES.format(nonce=nonce)}"
        return [{"role": "system", "content": system}, {"role": "user", "content": asked}]

    return messages
