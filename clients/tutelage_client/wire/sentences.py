"""What is wrong with a value, in words: what is there, what may be there, what helps.

Pydantic names each error by a type. Those that it raises itself are told in the words of the table; what a validator of
ours raises is a sentence already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tutelage_client.wire.forms import REMEDIES

Say = Callable[[Any, Mapping[str, Any]], str]  # of what was given, and of what pydantic knows of the rule

_SHOWN = 40  # characters of a value
_KINDS = {dict: "an object", list: "a list", tuple: "a list", set: "a list", frozenset: "a list", bytes: "text"}


def shown(value: Any) -> str:
    """A value as JSON has it, cut where it is long; what holds others by its kind alone."""
    return _KINDS.get(type(value)) or json.dumps(value, default=repr)[:_SHOWN]


def reason(error: Any) -> str:
    """What is wrong, of one of the errors that pydantic lists. Where it is wrong is not said."""
    say = SENTENCES.get(error["type"])
    return say(error.get("input"), error.get("ctx", {})) if say else _own(error["msg"])


def _own(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")


def _no(wanted: str, remedy: str) -> Say:
    return lambda given, _: f"{shown(given)} is no {wanted}; {remedy}"


def _beyond(size: str, remedy: str, limit: str) -> Say:
    return lambda given, rule: f"{shown(given)} is too {size}; give {remedy} {_number(rule[limit])}"


def _number(limit: Any) -> str:
    return str(int(limit)) if isinstance(limit, float) and limit.is_integer() else str(limit)


def _of_a_list(remedy: str, limit: str) -> Say:
    return lambda _, rule: f"it has {_counted(rule['actual_length'], 'entry', 'entries')}; give {remedy} {rule[limit]}"


def _counted(number: int | None, one: str, many: str) -> str:
    """number: None where pydantic did not read to the end"""
    return f"1 {one}" if number == 1 else f"{'more' if number is None else number} {many}"


def _of_text(remedy: str, limit: str) -> Say:
    return lambda given, rule: f"it has {_counted(len(given), 'character', 'characters')}; give {remedy} {rule[limit]}"


def _another_form(_: Any, rule: Mapping[str, Any]) -> str:
    pattern = rule["pattern"]
    return f"it has another form; {REMEDIES.get(pattern) or f'give what the pattern {pattern} describes'}"


def _one_of(given: Any, rule: Mapping[str, Any]) -> str:
    return f"{shown(given)} is not known here; give {rule['expected']}"


_text = _no("text", "write it in quotes")
_whole = _no("whole number", "give one such as 3")
_number_wanted = _no("number", "give one such as 0.5")
_truth = _no("truth value", "give true or false")
_list = _no("list", "give one, in brackets")
_object = _no("object", "give one: names and their values, in braces")
_time = _no("time", "give one such as 2026-01-31T12:00:00Z")

SENTENCES: dict[str, Say] = {
    "missing": lambda _, __: "it is missing; give a value",
    "extra_forbidden": lambda _, __: "nothing has this name here; leave it out",
    "none_required": _no("null", "give null or leave it out"),
    "json_invalid": lambda _, rule: f"this is no JSON: {rule['error']}; mend it there",
    "json_type": _no("JSON", "give it as text"),
    "string_type": _text,
    "string_unicode": lambda _, __: "it is no UTF-8; write the text in that encoding",
    "string_too_short": _of_text("at least", "min_length"),
    "string_too_long": _of_text("at most", "max_length"),
    "string_pattern_mismatch": _another_form,
    "int_type": _whole,
    "int_parsing": _whole,
    "int_from_float": _whole,
    "int_parsing_size": lambda _, __: "the number has too many digits; give a smaller one",
    "float_type": _number_wanted,
    "float_parsing": _number_wanted,
    "finite_number": _no("finite number", "give one such as 0.5"),
    "bool_type": _truth,
    "bool_parsing": _truth,
    "greater_than": _beyond("small", "more than", "gt"),
    "greater_than_equal": _beyond("small", "at least", "ge"),
    "less_than": _beyond("large", "less than", "lt"),
    "less_than_equal": _beyond("large", "at most", "le"),
    "too_short": _of_a_list("at least", "min_length"),
    "too_long": _of_a_list("at most", "max_length"),
    "list_type": _list,
    "tuple_type": _list,
    "set_type": _list,
    "frozen_set_type": _list,
    "dict_type": _object,
    "model_type": _object,
    "model_attributes_type": _object,
    "literal_error": _one_of,
    "enum": _one_of,
    "datetime_type": _time,
    "datetime_parsing": _time,
    "datetime_from_date_parsing": _time,
    "datetime_object_invalid": _time,
}
