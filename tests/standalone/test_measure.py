"""What is measured of a model's text agrees with the plain definitions."""

from __future__ import annotations

import pytest
import torch

from tutelage.standalone import measure
from tutelage.standalone.measure import LanguageModel, closeness, encoded, logprob, repetition, variety, write

PROMPTS = [[3, 4, 5], [6, 7], [8], [9, 3, 9, 3, 9]]


def naive(student: LanguageModel, teacher: LanguageModel, prompts: list[list[int]], texts: list[list[int]]) -> list:
    """Mean per token of both divergences and of the teacher's log-probability, one sequence at a time."""
    rows = []
    for prompt, text in zip(prompts, texts, strict=True):
        ids = torch.tensor([[*prompt, *text]])
        first = len(prompt) - 1
        with torch.inference_mode():
            p = student.network(ids).logits[0, first:-1].log_softmax(-1)
            q = teacher.network(ids).logits[0, first:-1].log_softmax(-1)
        written = q.gather(-1, torch.tensor(text)[:, None])[:, 0]
        rows.append(torch.stack([(p.exp() * (p - q)).sum(-1), (q.exp() * (q - p)).sum(-1), written], -1))
    return torch.cat(rows).mean(0).tolist()


@pytest.mark.parametrize("chunk_rows", [1, 7, 1000])
def test_closeness_is_the_mean_over_all_tokens_of_the_plain_divergences(
    student: LanguageModel, teacher: LanguageModel, monkeypatch: pytest.MonkeyPatch, chunk_rows: int
) -> None:
    monkeypatch.setattr(measure, "CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(measure, "PROMPTS_AT_ONCE", 3)
    texts = write(student, PROMPTS, max_new_tokens=12, seed=5)
    found = closeness(student, teacher, PROMPTS, texts)
    assert [found.reverse_kl, found.forward_kl, found.teacher_logprob] == pytest.approx(
        naive(student, teacher, PROMPTS, texts), abs=1e-4
    )


def test_the_teachers_log_probability_is_the_same_asked_alone(student: LanguageModel, teacher: LanguageModel) -> None:
    texts = write(student, PROMPTS, max_new_tokens=12, seed=5)
    alone = logprob(teacher, PROMPTS, texts)
    assert alone == pytest.approx(closeness(student, teacher, PROMPTS, texts).teacher_logprob, abs=1e-5)


def test_a_model_is_as_close_as_can_be_to_itself(student: LanguageModel) -> None:
    found = closeness(student, student, PROMPTS, [[3, 4], [5], [6, 7, 8], [9]])
    assert found.reverse_kl == pytest.approx(0, abs=1e-6)
    assert found.forward_kl == pytest.approx(0, abs=1e-6)


def test_equal_seeds_write_equal_texts_and_others_do_not(student: LanguageModel) -> None:
    first, again, other = (write(student, PROMPTS, 12, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(1 <= len(text) <= 12 for text in first)


def test_every_prompt_is_counted_once_as_written_and_once_as_compared(
    student: LanguageModel, teacher: LanguageModel
) -> None:
    steps: list[int] = []
    texts = write(student, PROMPTS, 4, 1, steps.append)
    assert sum(steps) == len(PROMPTS)
    closeness(student, teacher, PROMPTS, texts, steps.append)
    assert sum(steps) == 2 * len(PROMPTS)


def test_a_prompt_is_encoded_with_its_models_tokenizer(student: LanguageModel) -> None:
    assert encoded(student, ["a b"]) == [[3, 4]]
    assert student.text([3, 4, 1]) == "a b"


def test_a_text_without_repetition_has_none() -> None:
    assert repetition([[1, 2, 3, 4, 5, 6]]) == 0


def test_a_loop_repeats_all_but_its_first_round() -> None:
    # 12 tokens have nine 4-grams, of which a loop of three has three different ones.
    assert repetition([[1, 2, 3] * 4]) == pytest.approx(6 / 9)


def test_what_another_text_said_before_is_no_repetition() -> None:
    assert repetition([[1, 2, 3, 4], [1, 2, 3, 4]]) == 0


def test_texts_too_short_for_a_4_gram_do_not_repeat() -> None:
    assert repetition([[1, 1, 1], []]) == 0


def test_variety_counts_different_tokens_and_pairs_over_all_texts() -> None:
    found = variety([[1, 1, 2], [1, 1, 3, 4]])
    assert found.distinct_1 == pytest.approx(4 / 7)
    assert found.distinct_2 == pytest.approx(4 / 5)
    assert found.length == pytest.approx(3.5)
