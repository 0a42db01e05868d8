"""Bytes on their way into the store: whole in one request, or in parts that go on where a connection broke.

Until they are whole they lie in a folder of their own, and what nobody goes on with is gone after a day.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path
from time import time
from types import TracebackType
from typing import IO, Self

from tutelage.serving import ServiceProblem

UNFINISHED = "unfinished"
KEPT_S = 86_400.0
STOP = {"Connection": "close"}  # of a refusal in the midst of a body, the rest of which would come for nothing


class Upload:
    """One body: hashed while it is written, gone unless it is kept."""

    def __init__(self, folder: Path) -> None:
        (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="upload-", dir=folder / UNFINISHED)
        self._folder, self._path = folder, Path(name)
        self._handle = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self.bytes = 0

    def write(self, chunk: bytes) -> None:
        self._handle.write(chunk)
        self._digest.update(chunk)
        self.bytes += len(chunk)

    def keep(self) -> str:
        """Make the bytes durable under their hash, which is returned."""
        sha256 = self._digest.hexdigest()
        _keep(self._handle, self._path, self._folder / sha256)
        return sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        self._path.unlink(missing_ok=True)


class Partial:
    """What a project has sent so far of the content that hashes to `sha256`.

    The length of its file is how much that is, so nothing else is kept of an upload, and it outlives whoever wrote it.
    The file is locked for each write alone: a connection that nobody has noticed to be dead keeps no other from it.
    """

    def __init__(self, folder: Path, project: str, sha256: str) -> None:
        self._sha256 = sha256
        self._target = folder / sha256
        self._path = folder / UNFINISHED / project / sha256

    @property
    def is_stored(self) -> bool:
        """Whether the whole content is on the disk, whoever sent it."""
        return self._target.is_file()

    @property
    def offset(self) -> int:
        """Bytes that have arrived."""
        try:
            return self._path.stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, at: int, chunk: bytes) -> None:
        """Write behind the `at` bytes that are there. Raises: ServiceProblem: 409 `upload_moved`: others are."""
        with self._held(at) as handle:
            handle.write(chunk)

    @contextmanager
    def whole(self) -> Iterator[int]:
        """Its size, once the content is what its name says; it has that name durably when the block has ended well.

        Raises:
            ServiceProblem: 409 `upload_moved`; 422 `other_content`, and what has arrived is gone.
        """
        size = self.offset
        with self._held(size) as handle:
            handle.seek(0)
            found = hashlib.file_digest(handle, "sha256").hexdigest()
            if found != self._sha256:
                self._path.unlink()
                detail = f"the {size} bytes that arrived hash to {found}; they are dropped; upload it again"
                raise ServiceProblem(422, "other_content", detail)
            yield size
            _keep(handle, self._path, self._target)

    @contextmanager
    def _held(self, at: int) -> Iterator[BufferedRandom]:
        """The file, `at` bytes long, which nobody else writes meanwhile; a new one where nothing has arrived."""
        if at == 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = self._path.open("r+b" if at else "a+b")
        except FileNotFoundError:
            raise self._moved(at) from None
        with handle:
            if not _lock(handle, self._path) or handle.seek(0, os.SEEK_END) != at:
                raise self._moved(at)
            yield handle

    def _moved(self, at: int) -> ServiceProblem:
        offset = self.offset
        why = "another request writes it" if offset == at else f"this part begins at byte {at}"
        detail = f"the upload stands at byte {offset} and {why}; ask for its offset and go on from there"
        headers = {"Upload-Offset": str(offset), **STOP}
        return ServiceProblem(409, "upload_moved", detail, field="Upload-Offset", headers=headers)


def forget(folder: Path, unused_s: float = KEPT_S) -> int:
    """Remove what nobody has gone on with for so long, by the clock of this machine; returns how many that were."""
    old = [path for path in (folder / UNFINISHED).rglob("*") if path.is_file()]
    return sum(_forget(path, time() - unused_s) for path in old)


def _forget(path: Path, before: float) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as handle:
        if os.fstat(handle.fileno()).st_mtime < before and _lock(handle, path):
            path.unlink()
            return True
    return False


def _lock(handle: IO[bytes], path: Path) -> bool:
    """Hold the file until it is closed; False where somebody else does, or has moved or removed it meanwhile."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _keep(handle: IO[bytes], path: Path, target: Path) -> None:
    """The bytes first, then their name, and both outlive a loss of power."""
    handle.flush()
    os.fsync(handle.fileno())
    path.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
