"""What runs left behind, kept as each of them ends: an experiment that is cut off loses none that had ended."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import TutelageError
from tutelage_client.spec import RunSpec
from tutelage_client.wire import RunStatus, RunView

Plan = TypeVar("Plan")
# Where a spec names files.
FILES = (("student", "model"), ("reference", "model"), ("data", "train"), ("data", "eval"))


async def keep_each(
    client: CoordinatorClient, plans: Mapping[str, Plan], keep: Callable[[RunView, Plan], Awaitable[None]]
) -> None:
    """Wait for all runs, and have each kept as soon as it ends. plans: by the id of the run

    Raises:
        TutelageError: some did not succeed; all others are kept.
    """
    failed: list[str] = []
    async for run in as_they_end(client, plans):
        if run.status is RunStatus.SUCCEEDED:
            await keep(run, plans[run.id])
        else:
            failed.append(f"{run.name} {run.status}: {run.error}")
    if failed:
        raise TutelageError("; ".join(failed))


async def as_they_end(client: CoordinatorClient, run_ids: Iterable[str]) -> AsyncIterator[RunView]:
    """Each of the runs once it is final, whichever ends first."""
    waiting = list(run_ids)
    while waiting:
        for run_id in list(waiting):
            run = await client.run(run_id)
            if run.status.final:
                waiting.remove(run_id)
                yield run
        if waiting:
            await asyncio.sleep(1.0)


def write_kept(path: Path, outcome: Mapping[str, Any]) -> None:
    """Whole or not at all, however the experiment ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps(outcome))
    partial.replace(path)


def set_up(spec: RunSpec, teachers: Mapping[str, Path]) -> str:
    """A digest of the spec and of what its files and its teachers' models hold, wherever they lie. teachers: by name"""
    told = spec.model_dump(mode="json")
    for section, name in FILES:
        if told[section] is not None and told[section][name] is not None:
            told[section][name] = contents(Path(told[section][name]))
    told["models"] = {t.name: contents(teachers[t.name]) for t in spec.teachers if t.name in teachers}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def contents(path: Path) -> str:
    """sha256 of a file, or of all files in a directory with their names."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    named = "".join(f"{contents(file)} {file.relative_to(path)}\n" for file in files)
    return hashlib.sha256(named.encode()).hexdigest()
