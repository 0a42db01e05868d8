"""A run as a folder that is read without a coordinator: `tutelage runs export`, `run.export(folder)`."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tutelage_client.card import card
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import RunStatus, RunView
from tutelage_client.wire.measures import COUNTED

README = "README.md"  # where model hubs look for a card


class Exported(BaseModel):
    """What was written. without: what could not be, and why; null: everything is there"""

    run_id: str
    path: str
    files: list[str]
    without: str | None = None


async def export(coordinator: CoordinatorClient, run_id: str, path: Path | str) -> Exported:
    """Write `run.json`, `spec.json`, `metrics.parquet`, `rollouts.jsonl`, and of a run that succeeded its `model`.

    The model has a card, which says who taught it, how, on what, for how much, and what came of it.

    Raises:
        InvalidInput: pyarrow is not installed.
    """
    parquet = _parquet()
    folder = Path(path)
    run, rows = await coordinator.run(run_id), await coordinator.metrics(run_id)
    rollouts = await coordinator.all_rollouts(run_id)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread(_describe, folder, run)
    await asyncio.to_thread(parquet.write_table, _table(rows), folder / "metrics.parquet")
    await asyncio.to_thread(_lines, folder / "rollouts.jsonl", rollouts)
    without = None
    if run.status is RunStatus.SUCCEEDED:
        model = await coordinator.download_model(run_id, folder / "model")
        await asyncio.to_thread((model / README).write_text, card(run, rows))
    else:
        without = f"a model, as the run is {run.status}"
    files = sorted(await asyncio.to_thread(os.listdir, folder))
    return Exported(run_id=run_id, path=str(folder), files=files, without=without)


def _describe(folder: Path, run: RunView) -> None:
    (folder / "run.json").write_text(run.model_dump_json(indent=2) + "\n")
    (folder / "spec.json").write_text(json.dumps(run.spec, indent=2, ensure_ascii=False) + "\n")


def _lines(path: Path, items: Iterable[BaseModel]) -> None:
    with path.open("w") as file:
        file.writelines(item.model_dump_json() + "\n" for item in items)


def _parquet() -> Any:
    try:
        from pyarrow import parquet  # in an extra, as nothing else wants its 50 MB
    except ImportError as error:
        remedy = "install it with: pip install 'tutelage[export]'"
        raise InvalidInput(f"metrics.parquet is written by pyarrow, which is not here; {remedy}") from error
    return parquet


def _table(rows: Sequence[dict[str, Any]]) -> Any:
    """A column for each metric that any row has, null where a row has it not."""
    import pyarrow

    names = dict.fromkeys(name for row in [dict.fromkeys(COUNTED), *rows] for name in row)
    types = {name: pyarrow.int64() if name in COUNTED else pyarrow.float64() for name in names}
    return pyarrow.Table.from_pylist(list(rows), schema=pyarrow.schema(types.items()))
