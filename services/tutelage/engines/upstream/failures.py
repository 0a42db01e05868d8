"""What an upstream can do wrong. The words are for the caller of the teacher, so no key and no body is in them.

UpstreamFailed           no usable answer
├── UpstreamAway         a passing state: unreachable, or over its limits, for as long as was waited
└── UpstreamRefused      it understood and will not; the same question gets the same answer

BadAnswer                an answer that must not be believed, and is billed all the same
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tutelage_client.errors import BadScores, TutelageError
from tutelage_client.wire import Usage

Trouble = Literal["overloaded", "broken", "unreachable", "lost"]  # lost: it may have done what it was asked


class UpstreamFailed(TutelageError):
    """The upstream gave no usable answer. usage: what it bills all the same, as far as that is counted"""

    def __init__(self, message: str, usage: Usage | None = None) -> None:
        super().__init__(message)
        self.usage = usage or Usage()


class UpstreamAway(UpstreamFailed):
    """The upstream could not be reached, or took no work, within the deadline."""


class UpstreamRefused(UpstreamFailed):
    """The upstream answered `status`, below 500, to a request that is not worth repeating."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BadAnswer(BadScores):
    """Scores of an upstream that must not be believed. usage: what it bills all the same"""

    def __init__(self, refused: BadScores, usage: Usage) -> None:
        super().__init__(str(refused), refused.flaw)
        self.usage = usage


def spent_on(failures: Iterable[BaseException]) -> Usage:
    """What upstreams bill for these failures."""
    return sum((error.usage for error in failures if isinstance(error, UpstreamFailed | BadAnswer)), Usage())


class TryAgain(Exception):
    """One attempt failed in a way that may pass. `at_least_s`: what the upstream asked to wait."""

    def __init__(self, trouble: Trouble, reason: str, at_least_s: float = 0.0) -> None:
        super().__init__(reason)
        self.trouble: Trouble = trouble
        self.at_least_s = at_least_s
