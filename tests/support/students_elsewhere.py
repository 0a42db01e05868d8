"""A published student, and samplers in this process that work on a queue as `python -m tutelage.sampler` does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import torch

from tutelage.engines.loading import load_model
from tutelage.engines.snapshots import Base, Current, publish
from tutelage.engines.snapshots.files import known_ids
from tutelage.engines.snapshots.local import LocalStudent
from tutelage.queue import Queue
from tutelage.sampler.settings import Settings
from tutelage.sampler.work import Work
from tutelage_client.wire import SampleRequest, SnapshotRef


@asynccontextmanager
async def sampling(
    queue: Queue, *students: Current, name: str = "pool", **settings: Any
) -> AsyncGenerator[list[asyncio.Task[None]]]:
    """A sampler for each of these models, one with a model of its own if none is given."""
    stopping = asyncio.Event()
    given = Settings.model_validate({"name": name, "snapshot_patience_s": 0, "grace_s": 0} | settings)
    works = [
        Work(queue, student, given, f"w-{index}", stopping)
        for index, student in enumerate(students or (LocalStudent("cpu"),))
    ]
    tasks = [asyncio.create_task(work.run()) for work in works]
    try:
        yield tasks
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


def published(student: Path, root: Path, version: int, shift: float = 0.0, base: Base | None = None) -> SnapshotRef:
    """A snapshot of the model in `student`, with its embeddings shifted so far. base: they are adapters of it"""
    model = load_model(str(student), None, "float32", torch.device("cpu"))
    with torch.no_grad():
        model.get_input_embeddings().weight += shift * torch.arange(model.config.hidden_size)
    return snapshot_of(model, root, version, base)


@torch.no_grad()
def snapshot_of(model: Any, root: Path, version: int, base: Base | None = None) -> SnapshotRef:
    """Of a transformers model, or of the adapters of one that PEFT wraps."""
    ids = known_ids(model.config.vocab_size)
    logits = model(input_ids=torch.from_numpy(ids).long()[None]).logits[0]
    known = logits[:-1].log_softmax(-1).gather(-1, torch.from_numpy(ids[1:]).long()[:, None])[:, 0]
    about = {
        "policy_version": version,
        "dtype": "float32",
        "eos_ids": [0],
        "pad_id": 0,
        "base": base,
        "known_ids": ids.tolist(),
        "known_logprobs": known.tolist(),
    }
    return publish(root, about, model.save_pretrained)


def text_of(snapshot: SnapshotRef, place: int, places: int = 1, **changes: Any) -> SampleRequest:
    """A text of a few tokens."""
    asked: dict[str, Any] = {"snapshot": snapshot, "prompt_ids": [7, 11], "place": place, "places": places, "seed": 5}
    drawn = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 1.0}
    return SampleRequest.model_validate(asked | drawn | changes)
