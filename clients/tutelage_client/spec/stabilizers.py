"""What keeps a step from going too far: clips, masks and the pull to the reference."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import model_validator

from tutelage_client.spec.ranges import NonNegative, Positive
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.refusal import refused


class SignalClip(Message):
    """Keep the teacher's log-prob within `max` nats of the student's (type II: q/p)."""

    kind: Literal["signal_clip"] = "signal_clip"
    max: Positive = 6.0


class RatioClip(Message):
    """Weight each token by p/mu clipped to [min, max] (type I: staleness and sampler mismatch)."""

    kind: Literal["ratio_clip"] = "ratio_clip"
    min: NonNegative = 0.0
    max: Positive = 2.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min >= self.max:
            raise refused("min", f"{self.min} is not below max, which is {self.max}")
        return self


class SpecialTokenMask(Message):
    """Leave special tokens out of the loss; end-of-sequence stays in unless keep_eos is false."""

    kind: Literal["special_token_mask"] = "special_token_mask"
    keep_eos: bool = True


class ReferenceKl(Message):
    """Add coef x KL(p || the student as it was at the start)."""

    kind: Literal["reference_kl"] = "reference_kl"
    coef: Positive = 0.01


Stabilizer = Annotated[SignalClip | RatioClip | SpecialTokenMask | ReferenceKl, ByKind()]
