"""docs/reference/http-*.md: the routes of a service, from its OpenAPI, and the messages that they carry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.markdown import Schema, code, fields, prose, table, type_of
from docs.generate.openapi import coordinator_openapi, teacher_openapi

from tutelage_client.wire.codes import COMMON

COORDINATOR = """# The coordinator's HTTP API

Lists are pages: `{"data": [..], "next": cursor}`; give `next` as `after` for the page behind it. Every route may also
answer the [codes of every route](errors.md#of-every-route). For programs the same is in
[openapi-coordinator.json](openapi-coordinator.json), and the running service has it at `/openapi.json`. [A
run with curl alone](../http.md) shows the routes at work.
"""
TEACHER = """# The teacher's HTTP API

Row `r` of a score block speaks of token `token_ids[start + r]` and of nothing else. A teacher with a keys file wants
`Authorization: Bearer KEY` on every route below `/v1`. Large bodies travel as safetensors:
`Content-Type` and `Accept: application/vnd.tutelage.safetensors`. Every route may also answer the
[codes of every route](errors.md#of-every-route). For programs the same is in
[openapi-teacher.json](openapi-teacher.json), and the running service has it at `/openapi.json`.
"""
# What OpenAPI does not know, because the route reads the body itself.
BODIES = {
    ("post", "/v1/runs"): "a [spec](spec.md) as JSON",
    ("post", "/v1/files"): "the bytes",
    ("patch", "/v1/uploads/{sha256}"): "the bytes from there on, or some of them",
    ("post", "/v1/score"): "[ScoreRequest](#scorerequest), or the same as safetensors",
}
REPLIES = {
    ("get", "/v1/runs/{run_id}/events"): "page of [EventView](#eventview), or server-sent events",
    ("get", "/v1/runs/{run_id}/metrics"): "page of [rows](metrics.md)",
    ("get", "/v1/runs/{run_id}/model"): "a tar stream",
    ("get", "/v1/files/{file_id}/content"): "the bytes",
    ("get", "/v1/head"): "safetensors: `weight`, and `bias`, `scale`, `softcap` where the model has them",
    ("get", "/metrics"): "Prometheus text",
    ("get", "/healthz"): '`{"status": "ok"}`',
    ("get", "/readyz"): '`{"status": "ready"}`',
}
HIDDEN = re.compile(r"^(Page_|RootModel|HTTPValidationError|ValidationError)")


def coordinator_page() -> str:
    openapi = coordinator_openapi()
    public = {path: verbs for path, verbs in openapi["paths"].items() if not path.startswith("/internal")}
    internal = {path: verbs for path, verbs in openapi["paths"].items() if path.startswith("/internal")}
    workers = "## For workers\n\nEvery write carries the epoch of its lease.\n"
    return "\n".join([COORDINATOR, "## Routes\n", *_routes(public), workers, *_routes(internal), *_messages(openapi)])


def teacher_page() -> str:
    openapi = teacher_openapi()
    return "\n".join([TEACHER, "## Routes\n", *_routes(openapi["paths"]), *_messages(openapi)])


def _routes(paths: Mapping[str, Any]) -> Iterator[str]:
    for path, verbs in paths.items():
        for verb, route in verbs.items():
            yield f"### `{verb.upper()} {path}`\n"
            yield prose(route.get("description")) + "\n"
            yield table(("", ""), _facts(verb, path, route))


def _facts(verb: str, path: str, route: Schema) -> Iterator[list[str]]:
    for parameter in route.get("parameters", ()):
        if parameter["in"] != "path":
            shape = type_of(parameter["schema"])
            note = "; ".join(part for part in (shape, parameter.get("description", "")) if part)
            yield [f"{parameter['in']} {code(parameter['name'])}", note]
    body = BODIES.get((verb, path)) or _content(route.get("requestBody", {}))
    if body:
        yield ["body", body]
    good = {status: answer for status, answer in route["responses"].items() if status.startswith("2")}
    for status, answer in good.items():
        yield [status, REPLIES.get((verb, path)) or _content(answer) or answer["description"]]
    for status, answer in sorted(route["responses"].items()):
        own = [name for name in answer["description"].split(", ") if name not in COMMON]
        if status not in good and own and "content" in answer:
            yield [status, ", ".join(map(code, own))]


def _content(message: Schema) -> str:
    schema = message.get("content", {}).get("application/json", {}).get("schema", {})
    return _linked(type_of(schema)) if "$ref" in schema else ""


def _linked(name: str) -> str:
    if match := re.fullmatch(r"Page_(\w+?)_", name):
        return f"page of {_linked(match[1])}"
    return f"[{name}](#{name.lower()})"


def _links(shape: str, known: set[str]) -> str:
    """A type whose message is on this page leads there."""
    return re.sub(r"\b[A-Z]\w+", lambda found: _linked(found[0]) if found[0] in known else found[0], shape)


def _messages(openapi: Schema) -> Iterator[str]:
    yield "## Messages\n"
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        if HIDDEN.match(name):
            continue
        yield f"### {name}\n"
        yield prose(schema.get("description")) + "\n"
        if "enum" in schema:
            yield "One of " + ", ".join(map(code, schema["enum"])) + ".\n"
        shown = set(openapi["components"]["schemas"])
        rows = [[key, _links(shape, shown), default, meaning] for key, shape, default, _, meaning in fields(schema)]
        yield table(("field", "type", "default", "meaning"), rows)
