"""The HTTP door: routes and nothing else. What they do is in `scorer`."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from safetensors.numpy import save

from tutelage.serving import DirectRoute, answers, body_of, in_bytes, problem
from tutelage.serving.rates import RateLimited
from tutelage.teacher.accounts import BudgetSpent
from tutelage.teacher.admission import CapabilityMissing, require_head
from tutelage.teacher.callers import BEARER, CallerOf, Callers
from tutelage.teacher.entrance import BUSY, Teacher, refuse_if_busy, refuse_if_grading, scorer_of
from tutelage.teacher.failures import EngineFailed
from tutelage.teacher.negotiation import read_request, reply_form, write_reply
from tutelage.teacher.openai_face import openai_routes
from tutelage.teacher.patience import HungUp, while_wanted
from tutelage_client.errors import BadScores
from tutelage_client.wire import (
    MEDIA_TYPE,
    GenerateReply,
    GenerateRequest,
    RewardReply,
    RewardRequest,
    ScoreReply,
    ScoreRequest,
    Spending,
    TeacherInfo,
    needs_model,
)

KEPT = ("unauthorized", "out_of_scope")  # what every route may answer to a key
routes = APIRouter(prefix="/v1", tags=["teacher"], responses=answers(*KEPT))


@routes.get("/teacher")
async def describe(teacher: Teacher) -> TeacherInfo:
    """Name, capabilities, provenance and the result of the start-up probe."""
    return teacher.info()


@routes.get("/usage")
async def usage(teacher: Teacher, caller: CallerOf) -> Spending:
    """What the key of this request has spent, and the most that it may."""
    return teacher.spending(caller)


async def score(request: Request) -> Response:
    """Log-probabilities of given tokens. The body is JSON or safetensors by Content-Type, the reply by Accept."""
    teacher, caller = await scorer_of(request), request.app.state.callers.of(request)
    form = reply_form(request.headers.get("accept", ""))
    asked = read_request(await request.body(), request.headers.get("content-type", ""))
    refuse_if_busy(teacher, caller)
    return write_reply(await while_wanted(request, teacher.score(asked, caller)), form, asked.entry_dtype)


@routes.get("/head", response_class=Response, responses=in_bytes(MEDIA_TYPE) | answers("capability_missing"))
async def head(teacher: Teacher) -> Response:
    """The output head as safetensors: logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap)."""
    require_head(teacher.engine.capabilities, teacher.name)
    return Response(await asyncio.to_thread(lambda: save(teacher.engine.head())), media_type=MEDIA_TYPE)


@routes.post("/generate", responses=answers(*BUSY))
async def generate(asked: GenerateRequest, request: Request, teacher: Teacher, caller: CallerOf) -> GenerateReply:
    """Text of the teacher: continuations of prompts, `n` each."""
    refuse_if_busy(teacher, caller)
    return await while_wanted(request, teacher.generate(asked, caller))


@routes.post("/reward", responses=answers(*BUSY))
async def reward(asked: RewardRequest, request: Request, teacher: Teacher, caller: CallerOf) -> RewardReply:
    """Grade completions, or have the model judge them; an item that cannot be graded is not valid, never 0."""
    (refuse_if_busy if needs_model(asked.reward) else refuse_if_grading)(teacher, caller)
    return await while_wanted(request, teacher.reward(asked, caller))


def add_routes(app: FastAPI, callers: Callers) -> None:
    """Let `callers` in; the routes find the scorer in `app.state.scorer`."""
    app.state.callers = callers
    app.router.add_api_route(
        "/v1/score",
        score,
        methods=["POST"],
        tags=list(routes.tags),
        response_model=ScoreReply,
        responses=in_bytes(MEDIA_TYPE) | answers(*KEPT, *BUSY, "bad_scores", "not_acceptable"),
        openapi_extra=body_of(ScoreRequest, MEDIA_TYPE) | BEARER,
        route_class_override=DirectRoute,
    )
    app.router.routes.insert(0, app.router.routes.pop())  # each request asks the routes in order
    app.include_router(routes, dependencies=[Depends(callers)])
    app.include_router(openai_routes, dependencies=[Depends(callers)])
    app.add_exception_handler(CapabilityMissing, _on_capability_missing)
    app.add_exception_handler(RateLimited, _on_rate_limited)
    app.add_exception_handler(BudgetSpent, _on_budget_spent)
    app.add_exception_handler(HungUp, _on_hung_up)
    app.add_exception_handler(BadScores, _on_bad_scores)
    app.add_exception_handler(EngineFailed, _on_engine_failed)


async def _on_capability_missing(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CapabilityMissing)
    return problem(422, "capability_missing", error.message, field=error.field)


async def _on_rate_limited(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RateLimited)
    return problem(429, "rate_limited", str(error), headers={"Retry-After": str(error.retry_after_s)})


async def _on_budget_spent(_: Request, error: Exception) -> JSONResponse:
    return problem(402, "budget_spent", str(error))


async def _on_hung_up(_: Request, __: Exception) -> Response:
    return Response(status_code=499)  # for the count of answers alone


async def _on_bad_scores(_: Request, error: Exception) -> JSONResponse:
    return problem(502, "bad_scores", f"the engine's answer was refused: {error}")


async def _on_engine_failed(_: Request, error: Exception) -> JSONResponse:
    return problem(502, "engine_failed", str(error))
