"""Checkpoints that are whole or absent: a new directory, fsync, a manifest with hashes, then one rename.

    <artefacts>/checkpoints/step-00000050-e1/
        model/            what transformers (or peft) loads
        optimizer.safetensors, or optimizer/ with a file of each rank
        replay.jsonl      with source `adaptive`: the student's older text
        ahead.jsonl       with `max_lag`: what is written and not learned from
        state.json        step, token counts, cursors, what the run began with
        manifest.json     sha256 and size of every file above

A checkpoint counts once the coordinator has committed it, with the hash of its manifest; the name carries the epoch, so
a zombie cannot write into its successor's. Nothing here is pickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tutelage.durable import sync
from tutelage.trainer.crashes import CrashPoint, Passing, pass_by
from tutelage_client.errors import TutelageError
from tutelage_client.wire import CheckpointView

MANIFEST = "manifest.json"


class BrokenCheckpoint(TutelageError):
    """A checkpoint directory that does not match its manifest, or a manifest that is not the committed one."""


class NotSaved(TutelageError):
    """What was to be written is not on the disk. Nothing of it is left; what was there before is as it was."""


@dataclass(frozen=True)
class Found:
    """A checkpoint to go on from."""

    view: CheckpointView
    path: Path
    state: dict[str, Any]


def save(
    root: Path,
    epoch: int,
    step: int,
    write_model: Callable[[Path], None],
    state: dict[str, Any],
    passing: Passing = pass_by,
    *,
    needed: int = 0,
) -> CheckpointView:
    """Write one checkpoint under `root`. `write_model(folder)` puts model and optimizer files into the folder.

    needed: bytes that must be free before anything is written

    Raises:
        NotSaved: the disk is full or refuses.
    """
    begun_s = time.monotonic()
    temporary, final = _new_names(root, f"step-{step:08d}-e{epoch}")
    with refusing(f"the checkpoint of step {step}", temporary, final):
        temporary.mkdir(parents=True)
        _make_sure_of(root, needed)
        write_model(temporary)
        passing(CrashPoint.MID_SAVE)
        (temporary / "state.json").write_text(json.dumps(state, indent=1, sort_keys=True))
        settle(temporary)
        files = {str(p.relative_to(temporary)): _describe(p) for p in sorted(temporary.rglob("*")) if p.is_file()}
        manifest = json.dumps({"step": step, "epoch": epoch, "files": files}, indent=1)
        (temporary / MANIFEST).write_text(manifest)
        weights = weights_sha256(temporary / "model")
        for path in (temporary / MANIFEST, temporary):
            sync(path)
        temporary.rename(final)
        for folder in (root, root.parent):
            sync(folder)
    passing(CrashPoint.AFTER_RENAME)
    return CheckpointView(
        step=step,
        epoch=epoch,
        path=str(final),
        weights_sha256=weights,
        manifest_sha256=hashlib.sha256(manifest.encode()).hexdigest(),
        bytes=len(manifest.encode()) + sum(file["bytes"] for file in files.values()),
        seconds=time.monotonic() - begun_s,
    )


def verify(path: Path, manifest_sha256: str | None = None) -> dict[str, Any]:
    """The state of a checkpoint whose every file matches the manifest, and that the committed hash, where one is known.

    Raises:
        BrokenCheckpoint: a file is missing or differs.
    """
    try:
        text = (path / MANIFEST).read_bytes()
        if manifest_sha256 not in (None, hashlib.sha256(text).hexdigest()):
            raise BrokenCheckpoint(f"{path.name}/{MANIFEST} is not the one that was committed")
        for name, wanted in json.loads(text)["files"].items():
            if _describe(path / name) != wanted:
                raise BrokenCheckpoint(f"{path.name}/{name} differs from the manifest")
        return json.loads((path / "state.json").read_text())
    except (OSError, KeyError, ValueError) as error:
        raise BrokenCheckpoint(f"{path.name} is not a whole checkpoint: {error}") from error


def newest_whole(committed: Iterable[CheckpointView]) -> tuple[Found | None, list[str]]:
    """The first of these, newest first, that is whole, and what is wrong with each before it."""
    wrong: list[str] = []
    for view in committed:
        try:
            return Found(view, Path(view.path), verify(Path(view.path), view.manifest_sha256)), wrong
        except BrokenCheckpoint as error:
            wrong.append(str(error))
    return None, wrong


def retain(root: Path, keep: int, committed: CheckpointView) -> None:
    """Delete all but the newest `keep` checkpoints up to the committed one, and whatever a crash left half written.

    What lies beyond it, or beside it at the same step, belongs to an attempt that never committed it.
    """
    older = sorted((p for p in root.glob("step-*") if _step(p) < committed.step), key=_step, reverse=True)
    kept = {Path(committed.path), *older[: keep - 1]}
    for path in [*root.glob("step-*"), *root.glob(".step-*")]:
        if path not in kept:
            shutil.rmtree(path)


@contextmanager
def refusing(what: str, *written: Path) -> Iterator[None]:
    """On any error what was written is removed; one of the disk becomes NotSaved.

    The libraries in Rust have errors of their own for it, known by the words "os error" alone.
    """
    try:
        yield
    except Exception as error:
        for remains in written:
            shutil.rmtree(remains, ignore_errors=True)
        said = str(error).partition("\n")[0][:300]
        if isinstance(error, OSError) or "os error" in said:
            raise NotSaved(f"{what} cannot be written: {said}") from error
        raise


def settle(folder: Path) -> None:
    """Everything in the folder, and the folders themselves, on the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def weights_sha256(folder: Path) -> str:
    """One hash over the names and bytes of all weight files."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _new_names(root: Path, name: str) -> tuple[Path, Path]:
    """A hidden name to write under and the one to rename it to, neither of which was ever there."""
    for number in count(1):
        own = name if number == 1 else f"{name}-{number}"
        temporary, final = root / f".{own}.tmp", root / own
        if not (temporary.exists() or final.exists()):
            return temporary, final
    raise AssertionError


def _make_sure_of(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed:
        full = os.strerror(errno.ENOSPC)
        raise OSError(errno.ENOSPC, f"{full}: it needs {needed} bytes, {free} are free", str(root))


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
