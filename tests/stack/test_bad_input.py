"""What a person can get wrong, and the one sentence that each mistake is answered with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from embedded_stack import SKILL, Up, finished, small_spec
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import RunStatus

AT_SUBMISSION = {
    "unknown key": ({"objective": {"kind": "divergence", "suport": {}}}, "objective.suport", "did you mean 'support'"),
    "unknown teacher": ({"teachers": [{"name": "nobody"}]}, "teachers.0.name", "adder"),
    "out of range": ({"optim": {"lr": -1.0}}, "optim.lr", "give more than 0"),
    "not a number": ({"optim": {"lr": "fast"}}, "optim.lr", "number"),
    "impossible pair": ({"objective": {"kind": "supervised"}}, "rollout.source", "does not go with"),
    "k over the vocabulary": (
        {"objective": {"kind": "divergence", "support": {"kind": "teacher_top_k", "k": 4000}}},
        "objective.support.k",
        "19",
    ),
}


@pytest.mark.parametrize("case", AT_SUBMISSION)
async def test_a_wrong_spec_is_refused_at_submission(up: Up, data: Path, case: str) -> None:
    sections, field, words = AT_SUBMISSION[case]
    async with up.client() as client:
        with pytest.raises(ProblemResponse) as refused:
            await client.submit(small_spec(data, "bad", **sections))
    assert refused.value.status == 422
    assert words in refused.value.detail
    assert refused.value.field == field


def _file(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    return {"data": {"train": str(path)}}


def _other_tokenizer(tmp_path: Path) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(SKILL / "student")
    model.save_pretrained(tmp_path / "student")
    vocabulary = {token: i for i, token in enumerate(["<eos>", "<pad>", *"0123456789+=,;:>", "?"])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>").save_pretrained(
        tmp_path / "student"
    )
    return {"student": {"model": str(tmp_path / "student")}}


LINE = json.dumps({"prompt": "1+1:", "answer": "2"}) + "\n"
IN_VALIDATION = {
    "a malformed line": (lambda p: _file(p, LINE + "{oops\n"), "data.train", "line 2"),
    "a line without a prompt": (lambda p: _file(p, LINE * 2 + '{"answer": "2"}\n'), "data.train", "line 3"),
    "no data": (lambda p: _file(p, "\n"), "data.train", "at least one prompt"),
    "a missing file": (lambda p: {"data": {"train": str(p / "nothing.jsonl")}}, "data.train", "nothing.jsonl"),
    "context too long": (lambda _: {"rollout": {"max_new_tokens": 126}}, "data.train", "128"),
    "no completions": (lambda p: _file(p, LINE) | {"rollout": {"source": "data"}}, "data.train", '"completion"'),
    "another tokenizer": (_other_tokenizer, "student.model", "tokenizer"),
    "no such student": (lambda p: {"student": {"model": str(p / "nothing")}}, "student.model", "nothing"),
}


@pytest.mark.parametrize("case", IN_VALIDATION)
async def test_what_only_data_and_tokenizer_tell_fails_the_run_before_its_first_rollout(
    up: Up, data: Path, tmp_path: Path, case: str
) -> None:
    make, field, words = IN_VALIDATION[case]
    async with up.client() as client:
        run_id = (await client.submit(small_spec(data, "bad", **make(tmp_path)))).id
    run = await finished(up, run_id)
    assert run.status is RunStatus.FAILED
    assert run.error is not None
    assert (run.error.category, run.error.step, run.error.field) == ("user", 0, field)
    assert words in run.error.message
    assert run.student_tokens == 0
