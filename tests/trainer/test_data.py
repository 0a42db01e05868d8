"""A data file that cannot be used is refused with its line, in one sentence."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.trainer.data import Line, encode, read_lines
from tutelage_client.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "need", "said"),
    [
        ('{"prompt": "a"}\n{"prompt": \n', None, "data.train: d.jsonl line 2 is not JSON"),
        ('\n\n{"prompt": 3}', None, "data.train: d.jsonl line 3: prompt"),
        ('{"answer": "a"}', None, "data.train: d.jsonl line 1: prompt: it is missing"),
        ("[1]", None, "data.train: d.jsonl line 1: a list is no object"),
        ('{"prompt": ""}', None, "data.train: d.jsonl line 1 has an empty prompt"),
        ("", None, "data.train: d.jsonl has no lines; give at least one prompt"),
        (" \n\n", None, "data.train: d.jsonl has no lines"),
        ('{"prompt": "a", "completion": "b"}\n{"prompt": "a"}', "completion", 'd.jsonl line 2 has no "completion"'),
    ],
)
def test_a_bad_file_is_refused_with_its_line(text: str, need: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_lines(path, "data.train", need=need)
    assert said in refused.value.message
    assert refused.value.message.startswith("data.train: ")
    assert "\n" not in refused.value.message
    assert refused.value.field == "data.train"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"], ids=["missing", "not utf-8"])
def test_a_file_that_cannot_be_read_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"^data\.eval: cannot read d\.jsonl"):
        read_lines(path, "data.eval")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_a_string_may_hold_a_line_separator(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    prompts = [f"a{separator}b", "c"]
    path.write_text("\r\n".join(json.dumps({"prompt": p}, ensure_ascii=False) for p in prompts), newline="")
    assert [line.prompt for line in read_lines(path, "data.train").values()] == prompts


def test_a_completion_ends_with_the_end_of_sequence(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('\n{"prompt": "a b", "completion": "c", "answer": "x", "tag": "t", "more": 1}')
    (example,) = encode(read_lines(path, "data.train"), tokenizer, "data.train")
    assert (example.prompt_ids, example.completion_ids) == ([2, 3], [4, 1])
    assert (example.answer, example.tag, example.line) == ("x", "t", 2)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (" ", "data.eval: line 3: the prompt has no tokens"),
        ([{"role": "user", "content": "a"}], "data.eval: line 3: this tokenizer has no chat template"),
    ],
    ids=["no tokens", "no template"],
)
def test_a_prompt_that_cannot_be_encoded_is_refused_with_its_line(
    prompt: Any, said: str, tmp_path: Path, tokenizer: Any
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("\n".join(["", json.dumps({"prompt": "a"}), json.dumps({"prompt": prompt})]))
    with pytest.raises(InvalidInput) as refused:
        encode(read_lines(path, "data.eval"), tokenizer, "data.eval")
    assert refused.value.message.startswith(said)
    assert refused.value.field == "data.eval"


def test_a_tokenizer_that_cannot_end_a_text_is_refused_where_a_completion_needs_it(tokenizer: Any) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    (prompt_only,) = encode({1: Line(prompt="a")}, endless, "data.train")
    assert prompt_only.completion_ids is None
    with pytest.raises(InvalidInput, match=r"^student\.model: its tokenizer has no end-of-sequence token") as refused:
        encode({1: Line(prompt="a", completion="b")}, endless, "data.train")
    assert refused.value.field == "student.model"
