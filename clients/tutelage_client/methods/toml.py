"""A composition as its author would write it in a spec."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def as_toml(composition: Mapping[str, Any]) -> str:
    """TOML of the sections of a composition: tables of plain values and inline tables, and lists of such tables.

    A list within a table has a line for each of its tables.
    """
    parts = []
    for section, value in composition.items():
        tables = value if isinstance(value, list) else [value]
        head = f"[[{section}]]" if isinstance(value, list) else f"[{section}]"
        parts += ["\n".join([head, *(f"{key} = {_value(each)}" for key, each in table.items())]) for table in tables]
    return "\n\n".join(parts) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[\n" + "".join(f"    {_value(each)},\n" for each in value) + "]"
    return json.dumps(value)  # strings, numbers and booleans are the same in both
