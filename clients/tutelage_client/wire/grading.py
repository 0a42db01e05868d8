"""Graders as data: rewards that need no model, as `/v1/reward`, evaluation and the run spec name them.

The functions are in `tutelage.rewards`; what asks a model is in `rewarding`.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tutelage_client.wire.message import ByKind, Message


class ExactMatch(Message):
    """1.0 where the completion equals the reference after stripping outer white space."""

    kind: Literal["exact_match"] = "exact_match"
    ignore_case: bool = Field(default=False, description="upper and lower case are the same")


class LastNumber(Message):
    """1.0 where the last number in the completion equals the reference as a number, within `tolerance`."""

    kind: Literal["last_number"] = "last_number"
    tolerance: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="how far the number may lie from the answer"
    )


class Contains(Message):
    """1.0 where the completion contains the reference."""

    kind: Literal["contains"] = "contains"
    ignore_case: bool = Field(default=False, description="upper and lower case are the same")


class Pattern(Message):
    """1.0 where `pattern` matches the completion; with a group, where the group equals the reference.

    A search that takes longer than `timeout_s` is 0.0, with `detail.outcome` "timed_out".
    """

    kind: Literal["pattern"] = "pattern"
    pattern: str = Field(max_length=512, description="a regular expression of Python, searched in the completion")
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="for each answer, seconds of CPU time")

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"pattern is not a regular expression: {error}") from error
        return value


class Walk(Message):
    """1.0 where the moves R, L, U and D of the completion lead from the origin to the reference, "x,y"."""

    kind: Literal["walk"] = "walk"


class Math(Message):
    """1.0 where the answer in the completion equals the reference as mathematics: 1/2, 0.5 and \\frac12 are one answer.

    An answer that takes longer than `timeout_s` to compare is 0.0, with `detail.outcome` "timed_out".
    """

    kind: Literal["math"] = "math"
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="for each answer, seconds of CPU time")


class UnitTests(Message):
    """1.0 where the Python code of the completion passes the tests of the reference; run in a sandbox.

    `detail.outcome` is "passed", "failed", "timed_out" or "crashed". The code may use the standard library.
    """

    kind: Literal["unit_tests"] = "unit_tests"
    timeout_s: float = Field(default=10.0, gt=0, le=300, description="for the code and all tests of an item, seconds")
    memory_mb: int = Field(default=512, ge=64, le=65_536, description="of the code's process, MiB")


ModelFree = ExactMatch | LastNumber | Contains | Pattern | Walk | Math | UnitTests
Grader = Annotated[ModelFree, ByKind()]
