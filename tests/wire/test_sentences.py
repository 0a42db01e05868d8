"""What is wrong with a value is told in words of ours: what is there, what may be there, what helps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

import pytest
from pages import ROOT
from pydantic import BaseModel, Field, ValidationError
from pydantic_core.core_schema import ErrorType

from tutelage_client.wire.forms import LINE, NAME, REMEDIES, SHA256
from tutelage_client.wire.refusal import explain, in_one_sentence
from tutelage_client.wire.sentences import SENTENCES


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Inner(BaseModel):
    x: int


class Everything(BaseModel):
    text: Annotated[str, Field(min_length=2, max_length=4)] = "ab"
    name: Annotated[str, Field(pattern=NAME)] = "a"
    digest: Annotated[str, Field(pattern=SHA256)] = "0" * 64
    line: Annotated[str, Field(pattern=LINE)] = ""
    odd: Annotated[str, Field(pattern="^o")] = "o"
    whole: Annotated[int, Field(ge=1, lt=2**31)] = 1
    number: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.5
    flag: bool = True
    several: Annotated[list[int], Field(min_length=1, max_length=2)] = [1]
    once: frozenset[int] = frozenset()
    pair: tuple[int, ...] = ()
    table: dict[str, int] = {}
    inner: Inner = Inner(x=1)
    kind: Literal["a", "b"] = "a"
    colour: Colour = Colour.RED
    when: datetime = datetime(2026, 1, 1)
    nothing: None = None
    either: Annotated[str | list[int], in_one_sentence("give a text or ids")] = ""


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("text", 3, "3 is no text; write it in quotes"),
        ("text", None, "null is no text; write it in quotes"),
        ("text", "a", "it has 1 character; give at least 2"),
        ("text", "abcde", "it has 5 characters; give at most 4"),
        ("name", "a b", "it has another form; give 1 to 128 letters, digits, dots, dashes and underscores"),
        ("digest", "abc", "it has another form; give a sha256 in lower-case hex, which has 64 digits"),
        ("line", "a\nb", "it has another form; give text without control characters, such as line breaks"),
        ("odd", "p", "it has another form; give what the pattern ^o describes"),
        ("whole", "x", '"x" is no whole number; give one such as 3'),
        ("whole", 1.5, "1.5 is no whole number; give one such as 3"),
        ("whole", [1], "a list is no whole number; give one such as 3"),
        ("whole", 0, "0 is too small; give at least 1"),
        ("whole", 2**31, "2147483648 is too large; give less than 2147483648"),
        ("whole", "9" * 5000, "the number has too many digits; give a smaller one"),
        ("number", {}, "an object is no number; give one such as 0.5"),
        ("number", "much", '"much" is no number; give one such as 0.5'),
        ("number", 0, "0 is too small; give more than 0"),
        ("number", 0.75, "0.75 is too large; give at most 0.5"),
        ("number", float("nan"), "NaN is no finite number; give one such as 0.5"),
        ("flag", "perhaps", '"perhaps" is no truth value; give true or false'),
        ("flag", [], "a list is no truth value; give true or false"),
        ("several", "1", '"1" is no list; give one, in brackets'),
        ("several", [], "it has 0 entries; give at least 1"),
        ("several", [1, 2, 3], "it has 3 entries; give at most 2"),
        ("once", 3, "3 is no list; give one, in brackets"),
        ("pair", 3, "3 is no list; give one, in brackets"),
        ("table", [], "a list is no object; give one: names and their values, in braces"),
        ("inner", 3, "3 is no object; give one: names and their values, in braces"),
        ("kind", "c", "\"c\" is not known here; give 'a' or 'b'"),
        ("colour", "green", "\"green\" is not known here; give 'red' or 'blue'"),
        ("when", "yesterday", '"yesterday" is no time; give one such as 2026-01-31T12:00:00Z'),
        ("when", "2026-01-31T99:00:00Z", '"2026-01-31T99:00:00Z" is no time; give one such as 2026-01-31T12:00:00Z'),
        ("when", [], "a list is no time; give one such as 2026-01-31T12:00:00Z"),
        ("nothing", 1, "1 is no null; give null or leave it out"),
        ("either", [1, "x"], "give a text or ids"),
        ("kind", "c" * 100, '"' + "c" * 39 + " is not known here"),
    ],
)
def test_a_value_is_refused_with_what_it_is_and_what_helps(field: str, value: Any, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Everything.model_validate({field: value})
    sentence, named = explain(refused.value)
    assert named == field
    assert sentence.startswith(f"{field}: {told}")


def test_what_is_missing_and_what_is_no_json_are_told() -> None:
    for text, told in (("{}", "x: it is missing; give a value"), ("{", "this is no JSON: EOF while parsing an object")):
        with pytest.raises(ValidationError) as refused:
            Inner.model_validate_json(text)
        assert explain(refused.value)[0].startswith(told)


def test_every_form_in_the_services_files_has_its_remedy() -> None:
    files = [ROOT / "docs/reference" / f"openapi-{service}.json" for service in ("teacher", "coordinator")]
    patterns = {pattern for file in files for pattern in _patterns(json.loads(file.read_text()))}
    assert len(patterns) > 3
    assert patterns <= REMEDIES.keys()


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if schema.get("type") == "string" and "pattern" in schema:
            yield schema["pattern"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)


def test_the_words_are_those_of_errors_that_pydantic_has() -> None:
    assert SENTENCES.keys() <= set(get_args(ErrorType))
