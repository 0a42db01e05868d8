"""What a service says of itself: the refusals of each route by code, and the bodies that no framework reads."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tutelage_client.wire import Problem
from tutelage_client.wire.codes import PROBLEMS

PROBLEM_TYPE = "application/problem+json"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
BYTES = {"schema": {"type": "string", "format": "binary"}}
EVERYWHERE = (
    "bad_request",
    "foreign_request",
    "invalid_input",
    "too_large",
    "unsupported_content_encoding",
    "unsupported_media_type",
    "internal",
)
_REF = "#/components/schemas/{model}"

Responses = dict[int | str, dict[str, Any]]


def answers(*codes: str) -> Responses:
    """The problems that a route may answer with, as `responses` of a route, of a router, of an app.

    FastAPI keeps one entry a status, the route's own. So what every route may answer with that status is in it too.
    """
    found: Responses = {}
    for status, listed in by_status(*codes).items():
        shared = [code for code in EVERYWHERE if PROBLEMS[code].status == status]
        listed = dict.fromkeys([*shared, *listed])
        schema = {"allOf": [{"$ref": _REF.format(model="Problem")}, {"properties": {"code": {"enum": list(listed)}}}]}
        found[status] = {"description": ", ".join(listed), "content": {PROBLEM_TYPE: {"schema": schema}}}
    return found


def by_status(*codes: str) -> dict[int, list[str]]:
    """Codes by the status of HTTP that they go with."""
    found: dict[int, list[str]] = {}
    for code in codes:
        found.setdefault(PROBLEMS[code].status, []).append(code)
    return found


def in_bytes(*media_types: str) -> Responses:
    """An answer of 200 that is no message; beside a message where the route has one."""
    return {200: {"description": "as asked for", "content": dict.fromkeys(media_types, BYTES)}}


def in_part(*media_types: str) -> Responses:
    """The rest of the same, from the byte on that `Range` names."""
    return {206: {"description": "from this byte on", "content": dict.fromkeys(media_types, BYTES)}}


def again(message: type[BaseModel]) -> Responses:
    """What a route that makes something answers where it is there already."""
    return {200: {"description": "it is there already", "model": message}}


def in_events() -> Responses:
    """An answer of 200 that goes on, as server-sent events; beside a message where the route has one."""
    return {200: {"description": "as asked for", "content": {EVENT_STREAM: {}}}}


def body_of(message: type[BaseModel] | None, *media_types: str) -> dict[str, Any]:
    """The body of a route that reads it itself, as its `openapi_extra`: a message as JSON, or bytes of other types."""
    content: dict[str, Any] = dict.fromkeys(media_types, BYTES)
    if message is not None:
        content = {JSON: {"schema": message.model_json_schema(ref_template=_REF)}} | content
    return {"requestBody": {"required": True, "content": content}}


class DescribedApp(FastAPI):
    """An app whose OpenAPI has every schema under its name, those of problems and of `body_of` included."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            described = copy.deepcopy(super().openapi())  # what routes hold is theirs
            schemas = described.setdefault("components", {}).setdefault("schemas", {})
            _name(schemas, Problem.model_json_schema(ref_template=_REF))
            for content in _bodies(described["paths"]):
                if "properties" in content["schema"]:
                    content["schema"] = _name(schemas, content["schema"])
            described["components"]["schemas"] = dict(sorted(schemas.items()))
            self.openapi_schema = described
        return self.openapi_schema


def _bodies(paths: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for verbs in paths.values():
        for route in verbs.values():
            yield from route.get("requestBody", {}).get("content", {}).values()


def _name(schemas: dict[str, Any], schema: dict[str, Any]) -> dict[str, str]:
    """Put a schema and those inside it among the named ones; the reference to it."""
    schemas |= schema.pop("$defs", {}) | {schema["title"]: schema}
    return {"$ref": _REF.format(model=schema["title"])}
