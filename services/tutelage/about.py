"""What the work of this task is about: the same few ids in every log line and span of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TypedDict, Unpack


class Subject(TypedDict, total=False):
    """run_id, epoch: the attempt; step: counted from 1; policy_version: optimiser steps of the student in hand

    request_id: of the job that is worked on
    """

    run_id: str
    epoch: int
    step: int
    policy_version: int
    rollout_id: str
    request_id: str


ABOUT: ContextVar[Mapping[str, str | int]] = ContextVar("about", default={})  # noqa: B039 - nobody writes to it


def tell_about(**subject: Unpack[Subject]) -> Token[Mapping[str, str | int]]:
    """From now on, for the rest of this task and for what it starts."""
    return ABOUT.set({**ABOUT.get(), **subject})  # type: ignore[dict-item]


@contextmanager
def about(**subject: Unpack[Subject]) -> Iterator[None]:
    """Within the block."""
    before = tell_about(**subject)
    try:
        yield
    finally:
        ABOUT.reset(before)
