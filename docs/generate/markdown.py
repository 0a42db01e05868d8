"""Markdown from lists and from JSON schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "maxLength": "at most {} characters",
    "minLength": "at least {} characters",
    "maxItems": "at most {} of them",
    "minItems": "at least {} of them",
    "pattern": "matches `{}`",
}
SAID = {"at least 1 characters": "not empty", "at most 1 of them": "at most one", "at least 1 of them": "at least one"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, or nothing where it has no rows."""
    lines = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    if not lines:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").strip()


def code(value: Any) -> str:
    return f"`{value}`"


def prose(docstring: str | None) -> str:
    """A docstring without its part for programmers."""
    text = (docstring or "").partition("Raises:")[0]
    paragraphs = [re.sub(r"\s+", " ", part).strip() for part in re.split(r"\n\s*\n", text.strip())]
    return "\n\n".join(paragraphs)


def type_of(schema: Schema) -> str:
    """How a person would call the type."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return ", ".join(json.dumps(value) for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            members = [type_of(part) for part in schema[union] if part.get("type") != "null"]
            return " or ".join(dict.fromkeys(members))
    if isinstance(schema.get("type"), list):
        return " or ".join(str(name) for name in schema["type"])
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return ", ".join(type_of(part) for part in schema["prefixItems"])
        return f"list of {type_of(schema.get('items', {}))}"
    name = str(schema.get("type", "any"))
    return "table" if name == "object" else name


def limits_of(schema: Schema) -> str:
    """The bounds, in words."""
    found = [form.format(_number(schema[key])) for key, form in LIMITS.items() if key in schema]
    if "prefixItems" in schema:  # of a fixed length, which the type says already
        found = [f"each {limits_of(schema['prefixItems'][0])}"]
    found += [limits_of(part) for part in schema.get("anyOf", ())]
    return ", ".join(SAID.get(limit, limit) for limit in found if limit)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def fields(schema: Schema, *, skip: Sequence[str] = ()) -> list[list[str]]:
    """key, type, default, limits, meaning of each property."""
    required = schema.get("required", ())
    rows = []
    for name, each in schema.get("properties", {}).items():
        if name in skip:
            continue
        rows.append(
            [code(name), type_of(each), _default(name, each, required), limits_of(each), each.get("description", "")]
        )
    return rows


def _default(name: str, schema: Schema, required: Sequence[str]) -> str:
    if name in required:
        return "required"
    value = schema.get("default")
    if isinstance(value, dict) and value:
        return code(value["kind"]) if "kind" in value else "its own defaults"
    return "" if value is None else code(json.dumps(value))
