"""HTTP for every service of this project."""

from tutelage.serving.app import MAX_BODY_BYTES, Lifespan, Ready, create_app
from tutelage.serving.problems import PROBLEM_TYPE, ServiceProblem, answers, problem
from tutelage.serving.process import serve

__all__ = [
    "MAX_BODY_BYTES",
    "PROBLEM_TYPE",
    "Lifespan",
    "Ready",
    "ServiceProblem",
    "answers",
    "create_app",
    "problem",
    "serve",
]
