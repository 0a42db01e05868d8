"""Every error of a service as RFC 9457 problem+json: a stable code and one sentence, nothing of the inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Mount

from tutelage.serving.openapi import PROBLEM_TYPE
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Problem
from tutelage_client.wire.sentences import reason

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ServiceProblem(HTTPException):
    """A refusal with a stable `code` and one sentence for a person; becomes problem+json."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
        allowed: Sequence[str] | None = None,
    ) -> None:
        retry = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        super().__init__(status, detail, (headers or {}) | retry)
        self.code = code
        self.field = field
        self.allowed = allowed


def add_problem_handlers(app: FastAPI) -> None:
    """Turn every error of `app` into problem+json."""
    app.add_exception_handler(AnyHTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(InvalidInput, _on_invalid_input)
    app.add_exception_handler(ClientDisconnect, _on_cut)
    app.add_exception_handler(Exception, _on_bug)


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    field: str | None = None,
    errors: Sequence[dict[str, str]] = (),
    allowed: Sequence[str] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An RFC 9457 answer."""
    told = {"title": HTTPStatus(status).phrase, "status": status, "code": code, "detail": detail, "field": field}
    body = Problem.model_validate(told | {"errors": errors, "allowed": allowed})
    return JSONResponse(body.model_dump(exclude_none=True), status, headers, media_type=PROBLEM_TYPE)


async def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHTTPException)
    headers = dict(error.headers or {})
    if isinstance(error, ServiceProblem):
        told = {"field": error.field, "allowed": error.allowed, "headers": headers}
        return problem(error.status_code, error.code, error.detail, **told)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_offered(request)) or "GET, HEAD"  # of a mount, which serves files
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return problem(error.status_code, code, _sentence(request, error, headers), headers=headers)


def _offered(request: Request) -> list[str]:
    """The methods that some route takes at this path; the framework names those of one route alone."""
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    asked = {method: {**request.scope, "method": method} for method in METHODS}
    return [method for method in METHODS if any(route.matches(asked[method])[0] is Match.FULL for route in routes)]


def _sentence(request: Request, error: AnyHTTPException, headers: Mapping[str, str]) -> str:
    """The framework's own refusals in full sentences."""
    match error.status_code, error.detail:
        case 404, "Not Found":
            return f"there is nothing at {request.url.path}; /openapi.json has the routes"
        case 405, _:
            return f"{request.method} {request.url.path} is not offered; allowed here: {headers['Allow']}"
        case 400, "There was an error parsing the body":
            return "the body cannot be read: it is no UTF-8, or its lists and objects are nested too deep; mend that"
    return error.detail


async def _on_invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes) and any(each["loc"] == ("body",) for each in error.errors()):
        return _unread(request)
    errors = [_of_request(each) for each in error.errors()]
    first = errors[0]
    return problem(422, "invalid_input", first["message"], field=first.get("field"), errors=errors)


def _unread(request: Request) -> JSONResponse:
    """The framework takes a body for JSON only where it is called so."""
    named = request.headers.get("content-type")
    told = "has no Content-Type" if named is None else f"has the Content-Type {named!r}"
    sentence = f"the body {told}, and JSON is expected here; send it with Content-Type: application/json"
    return problem(415, "unsupported_media_type", sentence, field="Content-Type")


def _of_request(error: Any) -> dict[str, str]:
    part, *place = error["loc"]  # the body, the query, a header
    if error["type"] == "json_invalid":
        return {"message": f"the body is not JSON: {error['ctx']['error']} at byte {place[0]}; mend it there"}
    if not place:
        return {"message": f"the {part}: {reason(error)}"}
    field = ".".join(map(str, place))
    return {"field": field, "message": f"{field}: {reason(error)}"}


async def _on_invalid_input(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InvalidInput)
    return problem(422, "invalid_input", error.message, field=error.field)


async def _on_cut(_: Request, __: Exception) -> JSONResponse:
    """Nobody reads this; it is no bug, and counts as none."""
    return problem(400, "bad_request", "the connection broke before the whole body had come; send it again")


async def _on_bug(_: Request, __: Exception) -> JSONResponse:
    """The server logs the error itself; the caller learns nothing of the inside."""
    return problem(500, "internal", "the service failed on this request; its log has the reason")
