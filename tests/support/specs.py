"""A sound spec, the same with one value changed, and every table that a spec may hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic import BaseModel

GOOD: dict[str, Any] = {
    "name": "run",
    "student": {"model": "student"},
    "teachers": [{"name": "toy"}],
    "data": {"train": "prompts.jsonl"},
    "objective": {"kind": "divergence"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good spec with one value set at a dotted path, or taken away by None."""

    def put(node: Any, keys: list[str]) -> Any:
        key: Any = int(keys[0]) if isinstance(node, list) else keys[0]
        inner = value if len(keys) == 1 else put(node[key] if isinstance(node, list) else node.get(key, {}), keys[1:])
        if isinstance(node, list):
            return [inner if i == key else item for i, item in enumerate(node)]
        return {k: v for k, v in node.items() if k != key} | ({} if inner is None else {key: inner})

    return put(GOOD, path.split("."))


def models(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every table below `model`, each member of a union too, with the dotted path at which it stands in a spec."""
    for name, info in model.model_fields.items():
        for member, place in members(info.annotation, f"{path}{name}"):
            yield place, member
            yield from models(member, f"{place}.")


def members(annotation: Any, place: str) -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, place
    for inner in get_args(annotation):
        yield from members(inner, f"{place}.0" if get_origin(annotation) is list else place)


def nested(place: str, value: Any) -> dict[str, Any]:
    if place.startswith("objective.terms.0."):
        inner = nested(place.removeprefix("objective.terms.0."), value)["objective"]
        return changed("objective", {"kind": "sum", "terms": [{"objective": inner}]})
    if place == "objective.credit":
        return changed("objective", {"kind": "policy_gradient", "credit": value})
    return changed("stabilizers", [value]) if place == "stabilizers.0" else changed(place, value)
