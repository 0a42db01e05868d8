"""Plain values as JSON and back, so that two processes share values and nothing that acts."""

from __future__ import annotations

from typing import Any

_COLLECTIONS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class NotPlain(TypeError):
    """A value that acts, such as a function, or holds one."""


def packed(value: Any) -> Any:
    """What `unpacked` makes the same value of; a value of a derived type becomes one of the plain type.

    Raises:
        NotPlain: it is no number, text, bytes, None or collection of these.
    """
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[packed(key), packed(held)] for key, held in value.items()]}
    for name, kind in _COLLECTIONS.items():
        if isinstance(value, kind):
            return {name: [packed(held) for held in value]}
    raise NotPlain(f"{type(value).__name__} is no plain value such as a number, a text or a list")


def unpacked(data: Any) -> Any:
    """Raises: ValueError: not what `packed` makes."""
    if not isinstance(data, dict):
        return data
    ((name, held),) = data.items()
    if name == "dict":
        return {unpacked(key): unpacked(value) for key, value in held}
    if name == "bytes":
        return bytes.fromhex(held)
    if name == "complex":
        return complex(*held)
    if name not in _COLLECTIONS:
        raise ValueError(f"unknown kind of value {name!r}")
    return _COLLECTIONS[name](unpacked(value) for value in held)
