"""Evaluation samples every held-out prompt, grades what the student wrote, and says the same when it is done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tutelage.trainer.data import Example
from tutelage.trainer.evaluate import averaged, evaluate
from tutelage.trainer.student import Student
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Reward

PENALTY = {"kind": "constant_penalty"}
PROMPTS = [[2, 3], [4], [5, 6, 7], [8, 9]]
COMPLETIONS = [[10, 1], None, [11, 12, 1], [1]]
GREEDY = {"samples": 3, "temperature": 0.0}


@pytest.fixture
def student_for(make_spec: Any, make_student: Any) -> Callable[..., Student]:
    def make(eval_section: dict[str, Any], grader: dict[str, Any] | None = None, **sections: Any) -> Student:
        data = {"train": "t", "eval": "e", "grader": grader or {"kind": "exact_match"}}
        return make_student(make_spec(PENALTY, data=data, eval=eval_section, **sections))

    return make


def examples(answers: Sequence[str | None]) -> list[Example]:
    pairs = zip(PROMPTS, answers, strict=True)
    return [Example("p", ids, None, answer, None, line) for line, (ids, answer) in enumerate(pairs, 1)]


def greedy_texts(student: Student) -> list[str]:
    settings = student.spec.rollout.model_copy(update={"temperature": 0.0})
    rows = sorted(student.sample(PROMPTS, settings, torch.Generator()), key=lambda sampled: sampled.index)
    return [student.text(row.token_ids) for row in rows]


def test_accuracy_is_the_share_of_samples_that_were_right(student_for: Any) -> None:
    student = student_for(GREEDY)
    right = greedy_texts(student)
    answers = [right[0], "no such text", right[2], right[3]]
    assert evaluate(student, examples(answers), student.spec).metrics["accuracy"] == pytest.approx(3 / 4)
    assert evaluate(student, examples(right), student.spec).metrics["accuracy"] == 1.0


def test_length_and_truncation_are_those_of_the_samples(student_for: Any) -> None:
    student = student_for(GREEDY, rollout={"max_new_tokens": 1})
    found = evaluate(student, examples(["a"] * 4), student.spec).metrics
    assert found["eval_length"] == 1.0
    settings = student.spec.rollout.model_copy(update={"temperature": 0.0})
    cut = [row.finish_reason == "length" for row in student.sample(PROMPTS, settings, torch.Generator())]
    assert found["eval_truncated"] == pytest.approx(sum(cut) / 4)


def test_the_loss_is_that_of_the_completions_that_are_there(student_for: Any) -> None:
    student = student_for(GREEDY, optim={"micro_batch_tokens": 5})
    lines = [replace(line, completion_ids=ids) for line, ids in zip(examples(["a"] * 4), COMPLETIONS, strict=True)]
    surprises = []
    for line in lines:
        if line.completion_ids is not None:
            ids = torch.tensor(line.prompt_ids + line.completion_ids)
            with torch.no_grad():
                logp = student.model(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            surprises += [-float(logp[t - 1, ids[t]]) for t in range(len(line.prompt_ids), len(ids))]
    assert len(surprises) == 6
    expected = sum(surprises) / 6
    assert evaluate(student, lines, student.spec).metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert "eval_loss" not in evaluate(student, examples(["a"] * 4), student.spec).metrics


def test_the_same_student_is_found_as_good_again(student_for: Any) -> None:
    """Whatever was drawn or learned in between, the draws of an evaluation are its own."""
    student = student_for({"samples": 8, "temperature": 1.0}, grader={"kind": "pattern", "pattern": "[a-m]"})
    first = evaluate(student, examples([None] * 4), student.spec).metrics
    torch.rand(7)
    student.step = 30
    assert evaluate(student, examples([None] * 4), student.spec).metrics == first
    assert 0 < first["accuracy"] < 1


def test_the_rollouts_temperature_is_not_that_of_evaluation(student_for: Any) -> None:
    student = student_for(GREEDY, rollout={"temperature": 5.0, "top_p": 0.2})
    assert evaluate(student, examples(greedy_texts(student)), student.spec).metrics["accuracy"] == 1.0


def test_samples_that_cannot_be_graded_are_an_error_and_no_zero(student_for: Any) -> None:
    student = student_for(GREEDY)
    with pytest.raises(InvalidInput, match="3 of 12 samples cannot be graded by 'exact_match'") as refused:
        evaluate(student, examples(["a", None, "a", "a"]), student.spec)
    assert refused.value.field == "data.eval"


def test_an_answer_that_the_machine_left_ungraded_is_counted_and_in_no_accuracy() -> None:
    right, wrong = Reward(value=1.0, valid=True), Reward(value=0.0, valid=True)
    late = Reward(value=None, valid=False, detail={"outcome": "starved", "reason": "the machine is too busy"})
    found = averaged([right, wrong, late, right], ["a", "a", "b", "b"], "math")
    assert found == {"accuracy": pytest.approx(2 / 3), "accuracy/a": 0.5, "accuracy/b": 1.0, "eval_ungraded": 0.25}
    with pytest.raises(InvalidInput, match="2 of 2 samples cannot be graded by 'math': the machine is too busy"):
        averaged([late, late], ["a", "b"], "math")
