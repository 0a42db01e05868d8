"""The script that changes a queue's state. Its parts are joined into one text: an operation is one call, and atomic."""

from __future__ import annotations

from importlib.resources import files

PARTS = ("state.lua", "room.lua", "stream.lua", "ops.lua")


def script() -> str:
    """The Lua text; each part uses the local functions of those before it."""
    folder = files("tutelage.queue")
    return "\n".join(folder.joinpath(part).read_text() for part in PARTS)
