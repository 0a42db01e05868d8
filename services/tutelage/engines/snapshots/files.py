"""A snapshot: a student's weights at one policy version, as files that a trainer publishes and samplers load.

    00000005-1f3a0b5c9d2e/
        model/           what transformers (or peft) loads; safetensors alone
        snapshot.json    what it is, with the sha256 of every file of it

It is whole or absent: written under a hidden name, then renamed. The name ends in the sha256 of snapshot.json. Each
snapshot carries a known sequence with the log-probs that the trainer's own student gives it, so that whoever loads the
weights can tell whether it holds them.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from tutelage_client.errors import TutelageError
from tutelage_client.wire import Message, SnapshotRef

MANIFEST = "snapshot.json"
MODEL = "model"
KNOWN_TOKENS = 17
LOOK_S = 0.5


class SnapshotGone(TutelageError):
    """It is there no more: the attempt that published it has ended, or is past it."""


class SnapshotRefused(TutelageError):
    """It is not what it says, or a model that loaded it does not hold its weights."""


class Base(Message):
    """The model that adapters are of."""

    model: str
    revision: str | None = None


class Snapshot(Message):
    """What a snapshot says of itself."""

    policy_version: int
    dtype: Literal["float32", "bfloat16"] = Field(description="in which the student writes")
    eos_ids: list[int] = Field(description="each ends a text")
    pad_id: int
    base: Base | None = Field(description="null: the weights are whole")
    known_ids: list[int] = Field(description="a sequence to tell the weights by")
    known_logprobs: list[float] = Field(description="of its tokens but the first, of the student that was published")
    files: dict[str, str] = Field(description="sha256 by path")


def known_ids(vocabulary_size: int) -> NDArray[np.int32]:
    """A sequence that any model of this size reads, from all over its vocabulary."""
    return (np.arange(KNOWN_TOKENS, dtype=np.int64) * 7919 % vocabulary_size).astype(np.int32)


def publish(root: Path, about: dict[str, Any], write_model: Callable[[Path], None]) -> SnapshotRef:
    """Write one below `root`. about: of `Snapshot`, all but the files, which `write_model(folder)` makes

    Raises:
        OSError: the disk refuses.
    """
    version = about["policy_version"]
    hidden = root / f".{version:08d}.tmp"
    shutil.rmtree(hidden, ignore_errors=True)
    (hidden / MODEL).mkdir(parents=True)
    write_model(hidden / MODEL)
    text = Snapshot.model_validate(about | {"files": _hashes(hidden)}).model_dump_json(indent=1).encode()
    (hidden / MANIFEST).write_bytes(text)
    sha256 = hashlib.sha256(text).hexdigest()
    path = root / f"{version:08d}-{sha256[:12]}"
    hidden.rename(path)
    return SnapshotRef(path=str(path), sha256=sha256, policy_version=version)


def read(ref: SnapshotRef, patience_s: float = 0.0) -> Snapshot:
    """What a published snapshot is, once every file of it has its hash.

    patience_s: for a network's file system that shows a new directory late

    Raises:
        SnapshotGone: it is there no more.
        SnapshotRefused: a file is not the one that was published.
    """
    path = Path(ref.path)
    until_s = time.monotonic() + patience_s
    while not (path / MANIFEST).exists():
        if time.monotonic() >= until_s:
            raise SnapshotGone(f"there is no snapshot {path}")
        time.sleep(LOOK_S)
    try:
        text = (path / MANIFEST).read_bytes()
        if hashlib.sha256(text).hexdigest() != ref.sha256:
            raise SnapshotRefused(f"{path / MANIFEST} is not the one that was published")
        snapshot = Snapshot.model_validate_json(text)
        found = _hashes(path)
    except FileNotFoundError as error:
        raise SnapshotGone(f"the snapshot {path} was removed while it was read") from error
    except (OSError, ValidationError) as error:
        raise SnapshotRefused(f"the snapshot {path} cannot be read: {type(error).__name__}") from error
    for name, sha256 in snapshot.files.items():
        if found.get(name) != sha256:
            raise SnapshotRefused(f"{path / name} is not the file that was published")
    return snapshot


def check_known(snapshot: Snapshot, found: NDArray[np.floating[Any]], most_off: float, who: str) -> None:
    """Hold what a model says of the known sequence to what the student said.

    most_off: nats by which the log-prob of a token may differ

    Raises:
        SnapshotRefused: the model does not hold these weights.
    """
    wanted = np.array(snapshot.known_logprobs)
    off = float(np.abs(wanted - found).max()) if found.shape == wanted.shape and np.isfinite(found).all() else np.inf
    if off > most_off:
        sentence = f"{who} does not hold the weights of policy version {snapshot.policy_version}"
        remedy = "update it another way, such as by a restart, or name the weights that it should have"
        raise SnapshotRefused(
            f"{sentence}: a known token's log-prob is off by {off:.3g} nats, at most {most_off:g} go; {remedy}"
        )


def _hashes(folder: Path) -> dict[str, str]:
    """Of all files but the manifest, by path below the folder."""
    found: dict[str, str] = {}
    for path in sorted((folder / MODEL).rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
