"""What a run's trainer worked with on the shared disk. Once the run has ended only a fork could still read it.

The result stays, and so do the notes of what was learned and the files of trackers.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import Select, select

from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.tables import RunRow

FOLDERS = ("checkpoints", "inputs", "snapshots")
RUNS_AT_ONCE = 20
ASKED_AT_ONCE = 500  # runs of one query


def delete(database: Database, settings: Settings, ended: Select[str]) -> int:
    """Of RUNS_AT_ONCE of these runs, the number of which is returned.

    Raises:
        OSError: a file cannot be deleted.
    """
    root = settings.artefacts_root
    chosen = list(islice(_chosen(database, root, ended), RUNS_AT_ONCE))
    for run_id in chosen:
        for folder in _folders(root / run_id):
            shutil.rmtree(folder)
    return len(chosen)


def _chosen(database: Database, root: Path, ended: Select[str]) -> Iterator[str]:
    there = (path.name for path in sorted(root.glob("run-*")) if _folders(path))
    while part := list(islice(there, ASKED_AT_ONCE)):
        with database.read() as session:
            found = session.scalars(select(RunRow.id).where(RunRow.id.in_(ended), RunRow.id.in_(part)))
            yield from found.all()


def _folders(run: Path) -> list[Path]:
    return [run / name for name in FOLDERS if (run / name).is_dir()]
