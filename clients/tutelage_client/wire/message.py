"""What every message is, each table of a run's spec included, and how one of several kinds is told by its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationInfo, model_validator
from pydantic_core import CoreSchema, core_schema

from tutelage_client.wire.refusal import refused
from tutelage_client.wire.truths import mistaken

Reply = TypeVar("Reply")
REPLY = "a reply"  # the context of validation in which unknown keys are passed over


class Message(BaseModel):
    """Base of everything on the wire: frozen, an unknown key is refused with the nearest known one, and true is no 1.

    `read_reply` alone passes over unknown keys: a newer service may tell more than its caller knows to ask.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, data: Any, info: ValidationInfo) -> Any:
        known = cls.__pydantic_fields__.keys()
        if isinstance(data, dict) and not data.keys() <= known:
            if info.context == REPLY:
                return {key: value for key, value in data.items() if key in known}
            key = next(key for key in data if key not in known)
            hint = _nearest(key, known) or f"; known are {', '.join(sorted(known))}"
            raise refused(str(key), f"unknown key {str(key)!r}{hint}")
        return data

    @model_validator(mode="before")
    @classmethod
    def _take_no_truth_for_a_number(cls, data: Any) -> Any:
        if isinstance(data, dict) and (found := mistaken(cls, data)) is not None:
            raise refused(*found)
        return data


def read_reply(kind: type[Reply], text: bytes | str) -> Reply:
    """The JSON of a service's answer, of which unknown keys are passed over at any depth.

    Raises:
        pydantic.ValidationError: it is not `kind`.
    """
    return TypeAdapter(kind).validate_json(text, context=REPLY)


class ByKind:
    """Marks a union of messages that are told apart by `kind`.

    The member is validated by itself. Pydantic's own tagged union would put the member's tag into the path of an error,
    where only fields belong.
    """

    def __get_pydantic_core_schema__(self, union: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        members = {member.model_fields["kind"].default: member for member in get_args(union)}
        tagged = handler.generate_schema(Annotated[union, Field(discriminator="kind")])
        return core_schema.no_info_before_validator_function(partial(_member, members), tagged)


def _member(members: Mapping[str, type[Message]], value: Any) -> Any:
    known = f"known are {', '.join(members)}"
    if isinstance(value, Message):
        return value
    if not isinstance(value, dict):
        raise ValueError(f"give a table with a kind; {known}")  # noqa: TRY004 - pydantic wants a ValueError
    if "kind" not in value:
        raise refused("kind", f"the kind is missing; {known}")
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in members:
        raise refused("kind", f"unknown kind {kind!r}; {known}{_nearest(kind, members)}")
    return members[kind].model_validate(value)


def _nearest(name: Any, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
