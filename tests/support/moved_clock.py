"""The wall clock of a process, moved while it runs by a small library that is preloaded into it."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


class MovedClock:
    """Processes that are started with `env` see a clock that differs by the seconds that `by` last said."""

    def __init__(self, folder: Path) -> None:
        library = folder / "moved_clock.so"
        if not library.exists():
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        self._file = folder / "moved_clock_s"
        self.env = {"LD_PRELOAD": str(library), "MOVED_CLOCK_FILE": str(self._file)}
        self.by(0)

    def by(self, seconds: int) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(str(seconds))
        partial.replace(self._file)
