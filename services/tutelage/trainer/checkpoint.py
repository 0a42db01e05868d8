"""Checkpoints that are whole or absent: a new directory, fsync, a manifest with hashes, then one rename.

    <artefacts>/checkpoints/step-00000050-e1/
        model/            what transformers (or peft) loads
        optimizer.safetensors
        replay.jsonl      with source `adaptive`: the student's older text
        ahead.jsonl       with `max_lag`: what is written and not learned from
        state.json        step, token counts, cursors, the teacher's provenance
        manifest.json     sha256 and size of every file above

A checkpoint counts once the coordinator has committed it; the name carries the epoch, so a zombie cannot write into its
successor's. Nothing here is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.trainer.crashes import CrashPoint, Passing, pass_by
from tutelage_client.errors import TutelageError
from tutelage_client.wire import CheckpointView

MANIFEST = "manifest.json"


class BrokenCheckpoint(TutelageError):
    """A checkpoint directory that does not match its manifest."""


def save(
    root: Path,
    epoch: int,
    step: int,
    write_model: Callable[[Path], None],
    state: dict[str, Any],
    passing: Passing = pass_by,
) -> CheckpointView:
    """Write one checkpoint under `root`. `write_model(folder)` puts model and optimizer files into the folder."""
    final = root / f"step-{step:08d}-e{epoch}"
    temporary = root / f".{final.name}.tmp"
    for leftover in (temporary, final):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        write_model(temporary)
        passing(CrashPoint.MID_SAVE)
        (temporary / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True))
        files = {str(p.relative_to(temporary)): _describe(p) for p in sorted(temporary.rglob("*")) if p.is_file()}
        (temporary / MANIFEST).write_text(json.dumps({"step": step, "epoch": epoch, "files": files}, indent=1))
        for path in (*temporary.rglob("*"), temporary):
            _fsync(path)
    except Exception:  # such as a full disk, which what was written so far would keep full
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    temporary.rename(final)
    _fsync(root)
    passing(CrashPoint.AFTER_RENAME)
    return CheckpointView(step=step, epoch=epoch, path=str(final), weights_sha256=weights_sha256(final / "model"))


def verify(path: Path) -> dict[str, Any]:
    """The state of a checkpoint whose every file matches the manifest.

    Raises:
        BrokenCheckpoint: a file is missing or differs.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for name, wanted in manifest["files"].items():
            if _describe(path / name) != wanted:
                raise BrokenCheckpoint(f"{path.name}/{name} differs from the manifest")
        return json.loads((path / "state.json").read_text())
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise BrokenCheckpoint(f"{path.name} is not a whole checkpoint: {error}") from error


def newest_whole(root: Path, committed: CheckpointView | None) -> tuple[Path, dict[str, Any]] | None:
    """The committed checkpoint, or the newest older one that is whole. None: start from the student itself."""
    if committed is None:
        return None
    candidates = sorted((p for p in root.glob("step-*") if _step(p) <= committed.step), key=_step, reverse=True)
    for path in [Path(committed.path), *candidates]:
        try:
            return path, verify(path)
        except BrokenCheckpoint:
            continue
    return None


def retain(root: Path, keep: int, committed: CheckpointView) -> None:
    """Delete all but the newest `keep` checkpoints up to the committed one, and whatever a crash left half written.

    What lies beyond it, or beside it at the same step, belongs to an attempt that never committed it.
    """
    older = sorted((p for p in root.glob("step-*") if _step(p) < committed.step), key=_step, reverse=True)
    kept = {Path(committed.path), *older[: keep - 1]}
    for path in [*root.glob("step-*"), *root.glob(".step-*")]:
        if path not in kept:
            shutil.rmtree(path)


def weights_sha256(folder: Path) -> str:
    """One hash over the names and bytes of all weight files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _describe(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
