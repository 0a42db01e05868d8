"""A spec with some of its settings changed, and which ones differ between two.

Settings are named as errors name them: by dotted paths in which a number is a place in a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage_client.errors import InvalidInput


def merged(base: Any, changes: Any, field: str = "spec") -> Any:
    """`changes` over `base`, table by table. None takes a key away, so that its default holds.

    A table of another `kind` replaces the one that was there, whose keys mean nothing to it. A list is replaced by a
    list; a table whose keys are places in it changes those entries.

    Raises:
        InvalidInput: a place that the list does not have.
    """
    if isinstance(base, list) and isinstance(changes, Mapping) and changes:
        return _merged_places(base, changes, field)
    if not isinstance(changes, Mapping):
        return changes
    if not isinstance(base, Mapping) or changes.get("kind", base.get("kind")) != base.get("kind"):
        base = {}
    inner = {key: merged(base.get(key), value, _below(field, key)) for key, value in changes.items()}
    return {key: value for key, value in {**base, **inner}.items() if key not in changes or value is not None}


def _merged_places(base: list[Any], changes: Mapping[str, Any], field: str) -> list[Any]:
    places = {str(place) for place in range(len(base))}
    for key in changes:
        if key not in places:
            known = f"it has {', '.join(sorted(places, key=int))}" if places else "it is empty"
            sentence = f"{field}: {key!r} is no place in this list; {known}, or give the whole list"
            raise InvalidInput(sentence, f"{field}.{key}")
    return [merged(each, changes[str(i)], f"{field}.{i}") if str(i) in changes else each for i, each in enumerate(base)]


def differing(before: Any, after: Any, field: str = "") -> list[str]:
    """The settings that are not the same in two resolved specs, each as the deepest path that has both."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = dict.fromkeys([*before, *after])
        return [
            path for key in keys for path in differing(before.get(key), after.get(key), f"{field}.{key}".lstrip("."))
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [path for i, (one, other) in pairs for path in differing(one, other, f"{field}.{i}")]
    return [] if before == after else [field]


def touches(changed: list[str], *fields: str) -> bool:
    """Whether one of these settings, something inside it, or a table around it is among the changed ones."""
    return any(
        path == field or path.startswith(f"{field}.") or field.startswith(f"{path}.")
        for path in changed
        for field in fields
    )


def _below(field: str, key: str) -> str:
    return key if field == "spec" else f"{field}.{key}"
