"""The page of methods: what it claims by formula holds for numbers, and it leaves no method out."""

from __future__ import annotations

import math
import re

from docs.generate.algorithms import algorithms_page
from docs.generate.decided import DECIDED
from hypothesis import given
from hypothesis import strategies as st

from tutelage_client.methods import METHODS

LOGITS = st.lists(st.floats(-5, 5), min_size=4, max_size=4)


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(each) for each in logits))
    return [each - total for each in logits]


def kl(one: list[float], other: list[float]) -> float:
    return sum(math.exp(a) * (a - b) for a, b in zip(one, other, strict=True))


@given(LOGITS, LOGITS, LOGITS, LOGITS, st.floats(0.01, 10))
def test_reverse_kl_with_a_pull_to_the_reference_is_a_scaled_reward(
    one: list[float], other: list[float], teacher: list[float], reference: list[float], coef: float
) -> None:
    """KL(p || q) + c KL(p || ref) - (1 + c) KL(p || q^lambda ref^(1-lambda) / Z) is the same for every p."""
    q, ref = log_softmax(teacher), log_softmax(reference)
    scale = 1 / (1 + coef)
    target = log_softmax([scale * a + (1 - scale) * b for a, b in zip(q, ref, strict=True)])

    def rest(p: list[float]) -> float:
        return kl(p, q) + coef * kl(p, ref) - (1 + coef) * kl(p, target)

    assert math.isclose(rest(log_softmax(one)), rest(log_softmax(other)), abs_tol=1e-8)


@given(LOGITS, LOGITS, LOGITS, st.floats(0, 2))
def test_the_advantage_is_the_reward_minus_the_penalty(
    student: list[float], teacher: list[float], reference: list[float], scale: float
) -> None:
    p, q, ref = log_softmax(student)[0], log_softmax(teacher)[0], log_softmax(reference)[0]
    assert math.isclose(scale * (q - ref) - (p - ref), (q - p) + (scale - 1) * (q - ref), abs_tol=1e-9)


def test_every_method_has_its_section_and_its_row() -> None:
    page = algorithms_page()
    names = [each.name for each in METHODS]
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == names
    assert re.findall(r"^\| \[`([\w-]+)`\]", page, re.MULTILINE) == names
    assert page.count("```toml") == 1 + sum(each.composition is not None for each in METHODS)


def test_every_question_is_decided_with_a_reason() -> None:
    assert len(DECIDED) >= 13
    assert all(text.strip() for row in DECIDED for text in row)
