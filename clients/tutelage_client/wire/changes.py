"""What an owner makes of a run that is there: another name for it, or a fork."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from tutelage_client.wire.forms import NAME, TEXT
from tutelage_client.wire.message import Message

MOST_LABELS = 16
Label = Annotated[str, Field(min_length=1, max_length=64)]
LabelValue = Annotated[str, Field(max_length=512)]


class RunChanges(Message):
    """What may change in a run, as nothing that it computes follows from it. What is left out stays as it is."""

    name: Annotated[str, Field(pattern=NAME)] | None = Field(default=None, description="for people; not the spec's")
    labels: dict[Label, LabelValue | None] = Field(
        default={}, description=f"over those that are there, {MOST_LABELS} at most; null takes one away"
    )
    note: Annotated[str, Field(max_length=4096, pattern=TEXT)] | None = Field(
        default=None, description="a remark; empty: none"
    )


class ForkPoint(Message):
    """Where a fork began: at a committed checkpoint of another run."""

    run_id: str = Field(description="the other run")
    step: int = Field(description="steps that the checkpoint had done; those of the fork count on from it")
    changed: list[str] = Field(default=[], description="settings that differ from the other run's, as dotted paths")


class ForkRequest(Message):
    """Begin a new run at a committed checkpoint of another one."""

    step: int | None = Field(default=None, ge=0, lt=2**31, description="of the checkpoint; the newest if absent")
    spec: dict[str, Any] = Field(
        default={},
        description="settings over those of the other run, table by table; null takes a setting back to its default, "
        "a table of another `kind` replaces the one that was there, in a list a number is a place",
    )
