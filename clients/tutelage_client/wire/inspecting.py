"""What student and teacher held of each token of a rollout that was learned from, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from tutelage_client.wire.arrays import Flags, FloatRows, Floats, IdRows
from tutelage_client.wire.message import Message
from tutelage_client.wire.rollouts import Rollout

# In a row of these that is scored, a null of JSON is -inf.
LOGPROBS = ("student_logprob", "student_topk_logprob", "teacher_logprob", "teacher_topk_logprob")


class Inspection(Message):
    """Row r of every array speaks of token x[start + r] of prompt and completion, given all before it.

    The student's numbers are of its weights before the step, or of those that answered a held-out line. What nobody
    knows is null, and never 0; a log-probability that is null although its row is known is -inf.
    """

    start: int = Field(ge=1, description="position of the first completion token: the length of the prompt")
    valid: Flags = Field(description="[R] false where the teacher did not score the row; all of them without a teacher")
    student_logprob: Floats = Field(description="[R] log p(x[start+r] | x[:start+r]), nats")
    student_entropy: Floats = Field(description="[R] of the full vocabulary, nats")
    student_topk_ids: IdRows = Field(description="[R, k] the student's most probable tokens, descending; -1 pads")
    student_topk_logprob: FloatRows = Field(description="[R, k] their log-probabilities")
    teacher_logprob: Floats | None = Field(default=None, description="[R] log q(x[start+r] | x[:start+r]), nats")
    teacher_entropy: Floats | None = Field(default=None, description="[R] of the full vocabulary, nats")
    teacher_topk_ids: IdRows | None = Field(default=None, description="[R, k] as of the student; -1 pads")
    teacher_topk_logprob: FloatRows | None = Field(default=None, description="[R, k] their log-probabilities")
    contribution: Floats = Field(
        description="[R] what the token added to the sum that the step minimised, nats; null: not learned from"
    )
    learned_tokens: int = Field(ge=0, description="of the whole step: the sum is divided by it")
    teacher: str | None = Field(default=None, description="the name of the one that was asked")
    texts: dict[int, str] = Field(
        default={}, description="each token that is named above or written, as it reads alone"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        read = dict(data)
        for name in LOGPROBS:
            if isinstance(read.get(name), list):
                rows = len(read[name])
                known = np.asarray(data.get("valid", ()) if name.startswith("teacher") else [True] * rows, dtype=bool)
                read[name] = _to_numbers(read[name], known)
        return read

    @model_validator(mode="after")
    def _check(self) -> Self:
        rows = len(self.valid)
        for name, value in self.arrays().items():
            if len(value) != rows:
                raise ValueError(f"{name} has {len(value)} rows, valid has {rows}; give one for each completion token")
        for whose in ("student", "teacher"):
            ids, logprob = getattr(self, f"{whose}_topk_ids"), getattr(self, f"{whose}_topk_logprob")
            if (ids is None) != (logprob is None) or (ids is not None and ids.shape != logprob.shape):
                raise ValueError(f"{whose}_topk_ids and {whose}_topk_logprob must come together and agree in shape")
        return self

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that are there, by field name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def gap(self) -> NDArray[np.float32] | None:
        """log q - log p of each written token [R], NaN where the teacher did not score it; None without a teacher."""
        if self.teacher_logprob is None:
            return None
        return np.where(self.valid, self.teacher_logprob - self.student_logprob, np.float32(np.nan))


def check_faces(inspection: Inspection, rollout: Rollout) -> None:
    """
    Raises:
        ValueError: it has other rows than the rollout has completion tokens.
    """
    faced = len(rollout.prompt_ids), len(rollout.completion_ids)
    if (inspection.start, len(inspection.valid)) != faced:
        raise ValueError(
            f"the inspection of {rollout.id!r} has {len(inspection.valid)} rows from {inspection.start} on, "
            f"its completion has {faced[1]} tokens from {faced[0]} on"
        )


def _to_numbers(value: Sequence[Any], known: NDArray[np.bool_]) -> Any:
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinity
            array = np.asarray(value, dtype=np.float32)  # None becomes NaN
    except (TypeError, ValueError):
        return value  # its own field says what is wrong
    if array.shape[:1] != known.shape:
        return array
    return np.where(np.isnan(array) & known.reshape(known.shape + (1,) * (array.ndim - 1)), -np.inf, array)
