"""Which paths a spec may name: none of the coordinator's own, and where keys are asked for what the operator shares."""

from __future__ import annotations

import os
from pathlib import Path

from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Places


def hold(path: str, places: Places, field: str) -> None:
    """Refuse a path by what it says, and by where it leads on this machine.

    Raises:
        InvalidInput: it is in the coordinator's folder, or in none that is shared.
    """
    if "\0" in path:
        raise InvalidInput(f"{field}: the path holds a NUL character", field)
    for meant in (os.path.normpath(path), os.path.realpath(path)):
        if places.own is not None and _is_in(meant, places.own):
            remedy = "name an upload as file:ID, and go on from another run by `fork` or a download of its model"
            raise InvalidInput(f"{field}: {path!r} is in the coordinator's own folder; {remedy}", field)
        if places.shared is not None and not any(_is_in(meant, each) for each in places.shared):
            known = ", ".join(places.shared) or "none"
            remedy = "upload it and name it as file:ID, or have it put there"
            raise InvalidInput(f"{field}: {path!r} is in no folder that is shared ({known}); {remedy}", field)


def hold_all(path: str, places: Places, field: str) -> None:
    """The same of a folder and each file in it, which may lead elsewhere.

    Raises:
        InvalidInput: as `hold`.
    """
    hold(path, places, field)
    if Path(path).is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                hold(str(Path(folder, name)), places, field)


def _is_in(path: str, folder: str) -> bool:
    """Whether it is there, by the folder's name or by where that leads."""
    return any(Path(path).is_relative_to(root) for root in (os.path.normpath(folder), os.path.realpath(folder)))
