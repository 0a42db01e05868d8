"""What does not fit together is refused before the first rollout: one sentence, the field, the limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.tokenizer import tokenizer_fingerprint
from tutelage.trainer import validate
from tutelage.trainer.data import Example
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import TeacherInfo


def example(prompt: int, completion: int = 1, answer: str | None = "a", line: int = 1) -> Example:
    return Example("p", [2] * prompt, [3] * completion, answer, None, line)


def refusal(check: Callable[..., None], *arguments: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as refused:
        check(*arguments)
    assert refused.value.field is not None
    assert refused.value.message.startswith(f"{refused.value.field}: ")
    assert "\n" not in refused.value.message
    return refused.value


@pytest.fixture
def info(tokenizer: Any) -> TeacherInfo:
    engine = FakeEngine(FakeOptions(), "toy")
    own = engine.provenance.model_copy(update={"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)})
    return TeacherInfo(name="toy", capabilities=engine.capabilities, provenance=own)


def test_one_tokenizer_passes_and_two_do_not(tokenizer: Any, info: TeacherInfo) -> None:
    validate.check_tokenizer(tokenizer, info)
    other = info.provenance.model_copy(update={"tokenizer_fingerprint": "f" * 64})
    error = refusal(validate.check_tokenizer, tokenizer, info.model_copy(update={"provenance": other}))
    assert error.field == "student.model"
    assert "'toy'" in error.message
    assert "ffffffffffff" in error.message


def test_a_run_that_repeats_takes_no_text_of_a_teacher_that_does_not(make_spec: Any, info: TeacherInfo) -> None:
    hosted = info.capabilities.model_copy(update={"writes_by_seed": False})
    unseeded = info.model_copy(update={"capabilities": hosted})
    written = {"objective": {"kind": "supervised"}, "rollout": {"source": "teacher"}, "teachers": [{"name": "toy"}]}
    repeating = make_spec(written.pop("objective"), **written, deterministic=True)
    validate.check_repeats(repeating, info)
    validate.check_repeats(repeating.model_copy(update={"deterministic": False}), unseeded)
    own_text = {"objective": {"kind": "divergence"}, "rollout": {"source": "student"}}
    validate.check_repeats(make_spec(own_text.pop("objective"), **own_text, deterministic=True), unseeded)
    error = refusal(validate.check_repeats, repeating, unseeded)
    assert error.field == "deterministic"
    for word in ("'toy'", "whatever the seed", 'rollout.source = "data"', "deterministic = false"):
        assert word in error.message


def test_prompt_and_new_tokens_must_fit_every_context(make_spec: Any) -> None:
    spec = make_spec({"kind": "constant_penalty"}, rollout={"max_new_tokens": 8})
    examples = [example(3), example(12, line=4), example(5)]
    validate.check_lengths(spec, examples, "data.train", {"student": 20})
    error = refusal(validate.check_lengths, spec, examples, "data.train", {"student": 64, "teacher 'toy'": 19})
    for word in ("on line 4", "12 tokens", "max_new_tokens = 8", "teacher 'toy'", "19 tokens", "shorten"):
        assert word in error.message


def test_a_completion_must_fit_too() -> None:
    validate.check_completions([example(4, 6)], "data.train", {"student": 10})
    error = refusal(validate.check_completions, [example(9, 1), example(4, 7, line=8)], "data.train", {"student": 10})
    for word in ("on line 8", "11 tokens", "10 tokens"):
        assert word in error.message


def test_graders_that_compare_need_an_answer_on_every_line(make_spec: Any) -> None:
    data = {"train": "t", "eval": "e"}
    spec = make_spec({"kind": "constant_penalty"}, data=data | {"grader": {"kind": "last_number"}})
    validate.check_grading(spec, [example(1)])
    error = refusal(validate.check_grading, spec, [example(1), example(1, answer=None, line=6)])
    assert (error.field, "'last_number'" in error.message) == ("data.eval", True)
    assert "line 6" in error.message
    pattern = make_spec({"kind": "constant_penalty"}, data=data | {"grader": {"kind": "pattern", "pattern": "x"}})
    validate.check_grading(pattern, [example(1, answer=None)])
