"""What can go wrong between two processes, as one tree.

TutelageError
├── InvalidInput           a person can mend it: one sentence with the field, the limit and the remedy
├── BadScores              a teacher's reply that must not reach a loss
├── QuestionFailed         the queue gave up on one question; carries the last reason
├── ServiceUnreachable     no answer over HTTP within the retry policy
└── ProblemResponse        the other side answered with problem+json
    └── StaleEpoch         a newer attempt owns the run: stop writing at once
"""

from __future__ import annotations

from typing import Literal

# Of scores: NaN, above 0, of another length than asked, of other tokens or another model, or wrong in another way.
Flaw = Literal["nan", "positive", "length", "mismatch", "malformed"]


class TutelageError(Exception):
    """Base of everything this project raises across a process boundary."""


class InvalidInput(TutelageError, ValueError):
    """Input that its author can mend. `field` is a dotted path into what was sent."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class BadScores(TutelageError, ValueError):
    """A score block that breaks the alignment or is not a log-probability. flaw: what is wrong, in a word"""

    def __init__(self, message: str, flaw: Flaw = "malformed") -> None:
        super().__init__(message)
        self.flaw: Flaw = flaw


class QuestionFailed(TutelageError):
    """A question went to the dead letters; `reason` is what the last attempt said."""

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"question {job_id} was given up: {reason}")
        self.job_id = job_id
        self.reason = reason


class ServiceUnreachable(TutelageError):
    """The service at `url` did not answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url


class ProblemResponse(TutelageError):
    """An RFC 9457 problem that a service returned. `code` is stable, `detail` is for people."""

    def __init__(self, status: int, code: str, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field


class StaleEpoch(ProblemResponse):
    """The writer's epoch is older than the run's (HTTP 409, code `stale_epoch`)."""
