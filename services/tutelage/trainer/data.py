"""Prompts and answers from JSON lines. A malformed line is refused with its number before the first rollout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from transformers import PreTrainedTokenizerBase

from tutelage.engines.tokenizer import encode_prompt
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain


class Line(BaseModel):
    """One line of a data file."""

    model_config = ConfigDict(extra="allow", frozen=True)

    prompt: str | list[dict[str, Any]]
    completion: str | None = None
    answer: str | None = None
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A line as tokens. `completion_ids` ends with the end-of-sequence token; `line` counts from 1 in its file."""

    prompt: str | list[dict[str, Any]]
    prompt_ids: list[int]
    completion_ids: list[int] | None
    answer: str | None
    tag: str | None
    line: int


def read_lines(path: Path, field: str, *, need: str | None = None) -> dict[int, Line]:
    """Every line of the file that is not blank, by its number.

    Raises:
        InvalidInput: unreadable, empty, or a line that is not a JSON object with a prompt (and `need`).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{field}: cannot read {path.name}: {error}", field) from error
    # Not splitlines: JSON strings may hold other line separators, such as U+2028, as they are.
    numbered = enumerate(text.split("\n"), 1)
    lines = {number: _line(raw, number, path.name, field, need) for number, raw in numbered if raw.strip()}
    if not lines:
        raise InvalidInput(f"{field}: {path.name} has no lines; give at least one prompt", field)
    return lines


def _line(raw: str, number: int, name: str, field: str, need: str | None) -> Line:
    where = f"{field}: {name} line {number}"
    try:
        line = Line.model_validate(json.loads(raw))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{where} is not JSON ({error.msg} at column {error.colno})", field) from error
    except ValidationError as error:
        raise InvalidInput(f"{where}: {explain(error)[0]}", field) from error
    if not line.prompt:
        raise InvalidInput(f"{where} has an empty prompt", field)
    if need is not None and getattr(line, need) is None:
        raise InvalidInput(f'{where} has no "{need}", which this run needs on every line', field)
    return line


def encode(lines: dict[int, Line], tokenizer: PreTrainedTokenizerBase, field: str) -> list[Example]:
    """The lines as tokens.

    Raises:
        InvalidInput: a prompt without tokens, messages without a chat template, or a completion that nothing can end.
    """
    return [_example(line, number, tokenizer, field) for number, line in lines.items()]


def _example(line: Line, number: int, tokenizer: PreTrainedTokenizerBase, field: str) -> Example:
    try:
        prompt_ids = encode_prompt(tokenizer, line.prompt)
    except InvalidInput as error:
        raise InvalidInput(f"{field}: line {number}: {error.message}", field) from error
    return Example(
        prompt=line.prompt,
        prompt_ids=prompt_ids,
        completion_ids=None if line.completion is None else completion_ids(tokenizer, line.completion),
        answer=line.answer,
        tag=line.tag,
        line=number,
    )


def completion_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The text as tokens, ended by the end-of-sequence token.

    Raises:
        InvalidInput: the tokenizer has none.
    """
    end = tokenizer.eos_token_id
    if not isinstance(end, int):
        raise InvalidInput(
            "student.model: its tokenizer has no end-of-sequence token, with which every completion of the data must "
            "end; set eos_token in tokenizer_config.json",
            "student.model",
        )
    return [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
