"""The OpenAI-compatible routes: other people's evaluators and trainers work against a teacher as they are."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from tutelage.serving import EVENT_STREAM, EVERYWHERE, Responses, ServiceProblem, by_status, in_events
from tutelage.teacher.callers import CallerOf
from tutelage.teacher.completions import choices, complete
from tutelage.teacher.entrance import BUSY, Teacher, refuse_if_busy
from tutelage.teacher.patience import while_wanted
from tutelage_client.errors import TutelageError
from tutelage_client.wire import (
    CompletionsReply,
    CompletionsRequest,
    ModelCard,
    ModelList,
    OpenaiError,
    OpenaiErrorReply,
)

log = logging.getLogger(__name__)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
STATUSES = {422: 400}  # what OpenAI answers where a value is wrong


class OpenaiRoute(APIRoute):
    """A route whose refusals are in OpenAI's shape, with the stable code that the problem would have had."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            handlers = request.app.exception_handlers
            try:
                return await handle(request)
            except (HTTPException, RequestValidationError, TutelageError) as error:
                known = next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)
                return _redressed(await known(request, error))
            except Exception as error:  # a bug, which the server would answer in the other shape
                log.exception("a request failed")
                return _redressed(await handlers[Exception](request, error))

        return answer


def _refusals(*codes: str) -> Responses:
    """As `answers`, in OpenAI's shape and with its statuses."""
    known: dict[int, list[str]] = {}
    for status, listed in by_status("unauthorized", "out_of_scope", *EVERYWHERE, *codes).items():
        known.setdefault(STATUSES.get(status, status), []).extend(listed)
    found: Responses = {status: {"description": f"{instead} is said instead"} for status, instead in STATUSES.items()}
    for status, listed in known.items():
        found[status] = {"model": OpenaiErrorReply, "description": ", ".join(listed)}
    return found


openai_routes = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenaiRoute)


@openai_routes.get("/models", responses=_refusals())
async def models(teacher: Teacher) -> ModelList:
    """The teacher under its name, as the one model that is served."""
    card = ModelCard(
        id=teacher.name,
        created=teacher.started_at,
        root=teacher.engine.provenance.model,
        max_model_len=teacher.engine.capabilities.max_length,
    )
    return ModelList(data=[card])


@openai_routes.post(
    "/completions",
    response_model=CompletionsReply,
    responses=in_events() | _refusals("model_not_found", "bad_scores", *BUSY),
)
async def completions(asked: CompletionsRequest, request: Request, teacher: Teacher, caller: CallerOf) -> Response:
    """Texts, and log-probs of given tokens: `echo` with `logprobs`, or vLLM's `prompt_logprobs`. Refusals are 400."""
    if asked.model not in (None, teacher.name):
        message = f"there is no model {asked.model!r} here, this teacher is {teacher.name!r}"
        raise ServiceProblem(404, "model_not_found", message, field="model")
    refuse_if_busy(teacher, caller)
    written, usage = await while_wanted(request, complete(teacher, asked, caller))
    made = await asyncio.to_thread(lambda: list(choices(asked, written, teacher.engine.tokenizer)))
    reply = CompletionsReply(
        id=f"cmpl-{uuid.uuid4().hex}", created=int(time.time()), model=teacher.name, choices=made, usage=usage
    )
    if asked.stream:
        return StreamingResponse(_events(reply, asked.stream_options.include_usage), media_type=EVENT_STREAM)
    return Response(await asyncio.to_thread(reply.model_dump_json), media_type="application/json")


def _events(reply: CompletionsReply, include_usage: bool) -> Iterator[str]:
    """A chunk a text, whole, as none is known before all are."""
    for choice in reply.choices:
        yield _event(reply.model_copy(update={"choices": [choice], "usage": None}))
    if include_usage:
        yield _event(reply.model_copy(update={"choices": []}))
    yield "data: [DONE]\n\n"


def _event(chunk: CompletionsReply) -> str:
    return f"data: {chunk.model_dump_json()}\n\n"


def _redressed(problem: Response) -> JSONResponse:
    """A problem as OpenAI's error. `Retry-After` and the like stay."""
    told = json.loads(bytes(problem.body))
    status = STATUSES.get(problem.status_code, problem.status_code)
    error = OpenaiError(
        message=told["detail"],
        type=TYPES.get(status, "server_error" if status >= 500 else TYPES[400]),
        param=told.get("field"),
        code=told["code"],
    )
    kept = {k: v for k, v in problem.headers.items() if k not in ("content-length", "content-type")}
    return JSONResponse(OpenaiErrorReply(error=error).model_dump(), status, kept)
