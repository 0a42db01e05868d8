"""What keeps a step from going too far: clips, masks and the pull to the reference."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage_client.spec.ranges import NonNegative, Positive
from tutelage_client.wire.message import ByKind, Message
from tutelage_client.wire.refusal import refused


class SignalClip(Message):
    """Keep the teacher's log-probability near the student's: bounds q/p, where the two are far apart."""

    kind: Literal["signal_clip"] = "signal_clip"
    max: Positive = Field(default=6.0, description="nats between the two log-probabilities")


class RatioClip(Message):
    """Weight each token by p/mu, clipped: for text of an older student, or of another sampler."""

    kind: Literal["ratio_clip"] = "ratio_clip"
    min: NonNegative = Field(default=0.0, description="the smallest weight; below `max`")
    max: Positive = Field(default=2.0, description="the largest weight")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min >= self.max:
            raise refused("min", f"{self.min} is not below max, which is {self.max}")
        return self


class Freshness(Message):
    """Weight each token by decay^lag: the more policy versions ago its text was written, the less it counts."""

    kind: Literal["freshness"] = "freshness"
    decay: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.8, description="weight of text one version old")


class SpecialTokenMask(Message):
    """Leave the tokenizer's special tokens out of the loss."""

    kind: Literal["special_token_mask"] = "special_token_mask"
    keep_eos: bool = Field(default=True, description="learn from end-of-sequence all the same")


class ReferenceKl(Message):
    """Add coef x KL(p || ref) to the loss; ref is the student as it was at the start."""

    kind: Literal["reference_kl"] = "reference_kl"
    coef: Positive = Field(default=0.01, description="weight of the pull back")


class EntropyGate(Message):
    """Learn only where the next token is open: where its entropy, under teacher or student, is within these bounds."""

    kind: Literal["entropy_gate"] = "entropy_gate"
    of: Literal["teacher", "student"] = Field(default="teacher", description="whose entropy is measured")
    min: NonNegative = Field(default=0.0, description="nats; below `max`")
    max: Positive | None = Field(default=None, description="nats; no upper bound if absent")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max is not None and self.min >= self.max:
            raise refused("min", f"{self.min} is not below max, which is {self.max}")
        if self.min == 0 and self.max is None:
            raise refused("min", "a gate that starts at 0 and has no max lets everything through; set one of them")
        return self


Stabilizer = Annotated[SignalClip | RatioClip | Freshness | EntropyGate | SpecialTokenMask | ReferenceKl, ByKind()]
