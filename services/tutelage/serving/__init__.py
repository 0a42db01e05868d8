"""HTTP for every service of this project."""

from tutelage.serving.accepting import BY_ACCEPT, accepted, media_type
from tutelage.serving.app import MAX_BODY_BYTES, Lifespan, Ready, create_app
from tutelage.serving.direct import DirectRoute
from tutelage.serving.locality import is_loopback
from tutelage.serving.openapi import (
    EVENT_STREAM,
    EVERYWHERE,
    JSON,
    PROBLEM_TYPE,
    Responses,
    again,
    answers,
    body_of,
    by_status,
    in_bytes,
    in_events,
    in_part,
)
from tutelage.serving.problems import ServiceProblem, problem
from tutelage.serving.process import serve

__all__ = [
    "BY_ACCEPT",
    "EVENT_STREAM",
    "EVERYWHERE",
    "JSON",
    "MAX_BODY_BYTES",
    "PROBLEM_TYPE",
    "DirectRoute",
    "Lifespan",
    "Ready",
    "Responses",
    "ServiceProblem",
    "accepted",
    "again",
    "answers",
    "body_of",
    "by_status",
    "create_app",
    "in_bytes",
    "in_events",
    "in_part",
    "is_loopback",
    "media_type",
    "problem",
    "serve",
]
