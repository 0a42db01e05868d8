"""What pip is told on this machine, for a pip that runs elsewhere."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

KEPT = ("index-url", "extra-index-url", "find-links", "constraint", "cert", "trusted-host", "no-index")


def pip_settings() -> tuple[str, list[Path]]:
    """A pip.conf, and the files and folders that it names."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if key in KEPT and (section == ":env:" or key not in found):
            found[key] = ast.literal_eval(value)
    words = [(key, word) for key, value in found.items() for word in value.split()]
    paths = {path for key, word in words if (path := _named(key, word)) is not None}
    lines = ["[global]", *(f"{key} = {' '.join(value.split())}" for key, value in found.items())]
    return "\n".join(lines) + "\n", sorted(paths)


def _named(key: str, word: str) -> Path | None:
    """An index in a folder refers to files beside that folder."""
    path = Path(word.removeprefix("file://"))
    if not path.is_absolute() or not path.exists():
        return None
    return path.parent if key.endswith("index-url") else path
