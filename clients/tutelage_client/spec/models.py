"""The tables of a spec that name models: the student, a reference, the teachers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tutelage_client.spec.ranges import Positive
from tutelage_client.wire.forms import COMMIT, SHORT_NAME
from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import refused


class Lora(Message):
    """Train adapters (PEFT) instead of all weights. The final model has them merged."""

    rank: int = Field(default=16, ge=1, le=1024, description="rank of each adapter")
    alpha: int = Field(default=32, ge=1, description="the adapters' output is scaled by alpha / rank")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="on the adapters' input, while learning")
    target_modules: list[str] | Literal["all-linear"] = Field(
        default="all-linear", description="which layers get an adapter"
    )

    @field_validator("target_modules", mode="before")
    @classmethod
    def _are_names(cls, value: Any) -> Any:
        if value != "all-linear" and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
            raise ValueError('give "all-linear" or a list of names of modules')
        return value


class Model(Message):
    """A causal language model of transformers with safetensors weights."""

    model: str = Field(
        min_length=1, description="a directory, `file:ID` of an uploaded tar archive, or a hub id with a `revision`"
    )
    revision: Annotated[str, Field(pattern=COMMIT)] | None = Field(
        default=None, description="the commit of a hub id, 40 hex digits; only with it is `model` a hub id"
    )


class Reference(Model):
    """The model that is ref, of any size, with the student's tokenizer; the trainer holds it beside the student."""


class Student(Model):
    """The model that learns: a causal language model of transformers with safetensors weights."""

    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the arithmetic and of the final model; weights that learn are float32"
    )
    lora: Lora | None = Field(default=None, description="train adapters instead of all weights")


TeacherName = Annotated[str, Field(pattern=SHORT_NAME)]


class TeacherRef(Message):
    """A teacher of a run. Several share its lines by their tags; at most one of them has none and takes the rest."""

    name: TeacherName = Field(description="a name in the coordinator's registry, never a URL")
    on_loss: Literal["pause", "failover", "skip", "fail"] = Field(
        default="pause",
        description="what becomes of its lines once it is lost: pause: they wait for it; failover: `failover_to` is "
        "asked until it is back; skip: they are left out and counted while the step has others; fail: the run ends. "
        "A single question that it gives up is left out and counted, with fail it ends the run",
    )
    failover_to: TeacherName | None = Field(
        default=None,
        description="with `failover`: who is asked in its place, another name in the registry. If that is another "
        "model, the student learns from another teacher meanwhile",
    )
    patience_s: Positive = Field(
        default=60.0,
        description="it is lost once it owed answers for so many seconds and gave none, while the queue could be read",
    )
    outage_budget_s: Positive | None = Field(
        default=None,
        description="seconds without any answer to its lines after which the run ends with `teacher_outage`, its "
        "checkpoint kept; without it the run waits as long as it takes",
    )
    tags: list[Annotated[str, Field(min_length=1)]] = Field(
        default=[], description="it is asked about lines with one of these; without tags: about all the rest"
    )

    @field_validator("tags")
    @classmethod
    def _are_different(cls, tags: list[str]) -> list[str]:
        if len(set(tags)) < len(tags):
            raise ValueError("a tag is there more than once; name each once")
        return tags

    @model_validator(mode="after")
    def _acts_in_time(self) -> Self:
        if (self.on_loss == "failover") != (self.failover_to is not None):
            raise refused("failover_to", 'goes with on_loss = "failover"; give both or neither')
        if self.failover_to == self.name:
            raise refused("failover_to", f"{self.name!r} cannot stand in for itself; name another teacher")
        if self.outage_budget_s is None or self.on_loss == "pause":
            return self
        if self.on_loss == "fail":
            raise refused("outage_budget_s", 'on_loss = "fail" ends the run after patience_s; remove it')
        if self.outage_budget_s <= self.patience_s:
            sentence = f"{self.outage_budget_s:g} is not above patience_s = {self.patience_s:g}, so that"
            raise refused("outage_budget_s", f"{sentence} on_loss never acts; raise it or lower patience_s")
        return self
