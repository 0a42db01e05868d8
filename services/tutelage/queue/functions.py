"""The library of functions that change a queue's state. Each is one call, and atomic."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

PARTS = ("state.lua", "room.lua", "stream.lua", "ops.lua")


class Library(NamedTuple):
    """name: also how its functions' names begin; another text has another, so that versions go side by side"""

    name: str
    text: str


def library() -> Library:
    """Its parts joined into one text; each uses the local functions of those before it."""
    folder = files("tutelage.queue")
    parts = "\n".join(folder.joinpath(part).read_text() for part in PARTS)
    name = f"tutelage_{hashlib.sha256(parts.encode()).hexdigest()[:16]}"
    return Library(name, f"#!lua name={name}\nlocal LIBRARY = '{name}'\n{parts}")
