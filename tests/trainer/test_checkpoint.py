"""A checkpoint is whole or it is not used, and a resumed student is the one that was never stopped."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from tutelage.core.objective import Objective
from tutelage.trainer import checkpoint, saving
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.marking import Scored
from tutelage_client.wire import CheckpointView

SUPERVISED = {"kind": "supervised"}
# peft asks transformers by a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def write_some(folder: Path) -> None:
    (folder / "model").mkdir()
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "optimizer.safetensors").write_bytes(b"moments")


def save(root: Path, step: int, epoch: int = 1) -> CheckpointView:
    return checkpoint.save(root, epoch, step, write_some, {"step": step})


def whole(*committed: CheckpointView) -> tuple[Path, dict[str, Any]] | None:
    """The newest that is whole, with its state."""
    found, _ = checkpoint.newest_whole(committed)
    return None if found is None else (found.path, found.state)


def flip(folder: Path) -> None:
    (folder / "model" / "model.safetensors").write_bytes(b"veights")


def lose_a_file(folder: Path) -> None:
    (folder / "optimizer.safetensors").unlink()


def lose_the_manifest(folder: Path) -> None:
    (folder / checkpoint.MANIFEST).unlink()


def cut_the_manifest(folder: Path) -> None:
    text = (folder / checkpoint.MANIFEST).read_text()
    (folder / checkpoint.MANIFEST).write_text(text[: len(text) // 2])


def test_what_was_saved_is_whole(tmp_path: Path) -> None:
    view = save(tmp_path, 7)
    assert checkpoint.verify(Path(view.path)) == {"step": 7}
    assert whole(view) == (Path(view.path), {"step": 7})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000007-e1"]


@pytest.mark.parametrize("damage", [flip, lose_a_file, lose_the_manifest, cut_the_manifest, shutil.rmtree])
def test_of_a_damaged_checkpoint_the_older_one_is_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    older, newer = save(tmp_path, 5), save(tmp_path, 10)
    damage(Path(newer.path))
    with pytest.raises(checkpoint.BrokenCheckpoint):
        checkpoint.verify(Path(newer.path))
    assert whole(newer, older) == (Path(older.path), {"step": 5})
    found, wrong = checkpoint.newest_whole([newer, older])
    assert found is not None and len(wrong) == 1 and wrong[0].startswith("step-00000010-e1")
    damage(Path(older.path))
    assert whole(newer, older) is None


def test_a_checkpoint_with_another_manifest_than_the_committed_one_is_not_read(tmp_path: Path) -> None:
    """Whole in itself, as one that another program put there would be."""
    committed = save(tmp_path, 5)
    folder = Path(committed.path)
    (folder / "model" / "model.safetensors").write_bytes(b"changed")
    manifest = json.loads((folder / checkpoint.MANIFEST).read_text())
    forged = {"sha256": hashlib.sha256(b"changed").hexdigest(), "bytes": 7}
    manifest["files"]["model/model.safetensors"] = forged
    (folder / checkpoint.MANIFEST).write_text(json.dumps(manifest, indent=1))
    assert checkpoint.verify(folder) == {"step": 5}
    assert whole(committed) is None


def test_a_crash_while_writing_leaves_nothing_that_counts(tmp_path: Path) -> None:
    older = save(tmp_path, 5)

    def crash(folder: Path) -> None:
        write_some(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path, 1, 10, crash, {"step": 10})
    assert whole(older) == (Path(older.path), {"step": 5})
    checkpoint.retain(tmp_path, 2, older)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005-e1"]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), checkpoint.NotSaved),
        (SafetensorError("I/O error: No space left on device (os error 28)"), checkpoint.NotSaved),
        (KeyError("a mistake of ours"), KeyError),
    ],
)
def test_a_save_that_fails_leaves_the_older_one_and_no_remains(
    error: Exception, raised: type[Exception], tmp_path: Path
) -> None:
    older = save(tmp_path, 5)

    def fail(folder: Path) -> None:
        write_some(folder)
        raise error

    with pytest.raises(raised, match=re.escape(str(error))):
        checkpoint.save(tmp_path, 1, 10, fail, {"step": 10})
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000005-e1"]
    assert whole(older) == (Path(older.path), {"step": 5})


def test_nothing_is_written_where_there_is_no_room_for_all(tmp_path: Path) -> None:
    with pytest.raises(checkpoint.NotSaved, match=r"the checkpoint of step 5 .* 1152921504606846976 bytes"):
        checkpoint.save(tmp_path, 1, 5, write_some, {"step": 5}, needed=1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_never_written_over_one_that_is_there(tmp_path: Path) -> None:
    first, second = save(tmp_path, 5), save(tmp_path, 5)
    assert first.path != second.path
    assert whole(first) is not None and whole(second) is not None


def test_the_newest_are_kept_and_the_committed_one_always_is(tmp_path: Path) -> None:
    """A lost attempt got further before its end; the one that committed must not give way to it."""
    for step in (5, 10, 15):
        save(tmp_path, step, epoch=1)
    committed = save(tmp_path, 10, epoch=2)
    checkpoint.retain(tmp_path, 2, committed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000005-e1", "step-00000010-e2"]
    checkpoint.retain(tmp_path, 1, committed)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000010-e2"]


@pytest.mark.parametrize("lora", [None, {"rank": 4, "dropout": 0.2}], ids=["full", "lora"])
def test_a_resumed_student_is_the_one_that_never_stopped(
    lora: dict[str, Any] | None, tmp_path: Path, make_spec: Any, make_student: Any, random_rollouts: Any
) -> None:
    optim = {"schedule": "cosine", "warmup_steps": 2, "steps": 4, "weight_decay": 0.1}
    spec = make_spec(SUPERVISED, student={"lora": lora} if lora else {}, optim=optim)
    objective = Objective(kind="supervised")

    def steps(student: Any, numbers: range) -> None:
        if lora is None:  # Llama's only dropout
            for layer in student.model.model.layers:
                layer.self_attn.attention_dropout = 0.2
        for number in numbers:
            scored = [Scored(r, None) for r in random_rollouts(4, number)]
            student.learn(micro_batches(scored, 20, 0, student.device, {}, asks_teacher=False), objective)

    through, first, second = make_student(spec), make_student(spec), make_student(spec)
    steps(through, range(4))
    steps(first, range(2))
    view = checkpoint.save(tmp_path, 1, 2, partial(saving.write, first), {"step": 2})
    saving.read(second, Path(view.path), checkpoint.verify(Path(view.path))["step"])
    steps(second, range(2, 4))
    assert second.step == through.step == 4
    for (name, one), (_, other) in zip(through.trained.items(), second.trained.items(), strict=True):
        assert torch.equal(one, other), name
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(through.optimizer.adamw.state[one][key], second.optimizer.adamw.state[other][key])
    assert any(not torch.equal(p, first.trained[name]) for name, p in second.trained.items())
