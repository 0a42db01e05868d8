"""A run is resumed with what it began with, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recording_worker import RecordingWorker
from safetensors.torch import load_file, save_file
from toy_teacher import working
from whole_runs import Build, finish

from tutelage.engines.fake import FakeEngine
from tutelage.queue import MemoryQueue
from tutelage.trainer.loading import load_student
from tutelage.trainer.origin import Origin, origin_of
from tutelage_client.errors import InvalidInput


async def test_a_run_whose_data_was_changed_is_not_resumed(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, spec = MemoryQueue(), spec_of(3)
    async with working(queue, engine):
        await finish(await building(spec, worker, queue))
    data = Path(spec.data.train)
    data.write_text(data.read_text() + '\n{"prompt": "a", "answer": "a"}')
    with pytest.raises(InvalidInput, match=r"^data\.train: it is not what this run began with") as refused:
        await building(spec, worker, queue, epoch=2, checkpoint=worker.newest)
    assert refused.value.field == "data.train"


# peft asks transformers by a name that transformers has deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_what_every_attempt_reads_anew_is_part_of_it(
    make_spec: Any, make_student: Any, model_dir: Path, tmp_path: Path
) -> None:
    """Full training reads the weights once, adapters stand on them for ever."""
    plain, adapted = make_spec(), make_spec(student={"lora": {"rank": 2}})
    anchored = make_spec(stabilizers=[{"kind": "reference_kl", "coef": 0.1}])
    other = tmp_path / "other"
    other.mkdir()
    for path in model_dir.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})

    def parts(spec: Any, folder: Path) -> Any:
        return origin_of({}, load_student(folder, spec), [], None).parts

    assert parts(plain, model_dir) == parts(plain, other)
    assert parts(adapted, model_dir) == parts(adapted, model_dir)
    assert parts(adapted, model_dir) != parts(adapted, other)
    assert parts(anchored, model_dir) == parts(anchored, model_dir)
    assert parts(anchored, model_dir) != parts(anchored, other)

    def part_of(reference: Path) -> Any:
        named = make_spec(stabilizers=[{"kind": "reference_kl"}], reference={"model": "named"})
        found = origin_of({}, load_student(model_dir, named, reference), [], None).parts
        assert found["student.model"] == parts(plain, model_dir)["student.model"]
        return found["reference.model"]

    assert part_of(other) == part_of(other)
    assert part_of(other) != part_of(model_dir)


async def test_other_code_is_said_aloud(
    spec_of: Any, building: Build, engine: FakeEngine, worker: RecordingWorker
) -> None:
    queue, spec = MemoryQueue(), spec_of(3)
    first = await building(spec, worker, queue)
    first.origin = Origin(first.origin.parts, dict(first.origin.versions) | {"torch": "1.0"})
    async with working(queue, engine):
        await finish(first)
    told = RecordingWorker()
    await building(spec, told, queue, epoch=2, checkpoint=worker.newest)
    said = f"the checkpoint was written by torch 1.0, now {torch.__version__}: from here on the last bits may differ"
    assert told.events[0] == said
