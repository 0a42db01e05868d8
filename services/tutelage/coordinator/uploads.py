"""Bytes on their way into the store: whole in one request, or in parts that go on where a connection broke.

Until they are whole they lie in a folder of their project, and what nobody goes on with is gone after a day.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from time import time
from types import TracebackType
from typing import IO, NamedTuple, Self

from tutelage.durable import sync
from tutelage.serving import ServiceProblem

UNFINISHED = "unfinished"
KEPT_S = 86_400.0
STOP = {"Connection": "close"}  # of a refusal in the midst of a body, the rest of which would come for nothing


class Content(NamedTuple):
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """What a project's files may take. most: bytes, None for any number; whole: of its files; arriving: the folder
    of what has arrived of others, where that counts too
    """

    project: str
    most: int | None
    whole: int
    arriving: Path | None = None

    def check(self, more: int) -> None:
        """Raises: ServiceProblem: 413 `project_full`: so many bytes more are too many."""
        if self.most is None:
            return
        arrived = 0 if self.arriving is None else sum(map(_size, self.arriving.glob("*")))
        if self.whole + arrived + more > self.most:
            detail = (
                f"the files of the project {self.project} may have {self.most} bytes here; they have {self.whole}, "
                f"{arrived} have arrived of others, and {more} more would come: delete files that are needed no "
                "longer, which GET /v1/files lists, or unfinished uploads; --max-project-bytes of the coordinator"
            )
            raise ServiceProblem(413, "project_full", detail, headers=STOP)


class Upload:
    """One body: hashed while it is written, gone unless it becomes whole."""

    def __init__(self, folder: Path, project: str) -> None:
        own = arriving(folder, project)
        own.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix="upload-", dir=own)
        self._folder, self._path = folder, Path(name)
        self._handle = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self._bytes = 0

    def write(self, chunk: bytes) -> None:
        self._handle.write(chunk)
        self._handle.flush()  # what has arrived is counted on the disk
        self._digest.update(chunk)
        self._bytes += len(chunk)

    @contextmanager
    def whole(self) -> Iterator[Content]:
        """What came; it has its name durably when the block has ended well."""
        content = Content(self._digest.hexdigest(), self._bytes)
        os.fsync(self._handle.fileno())
        yield content
        _name(self._path, self._folder / content.sha256)

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
        self._path = arriving(folder, project) / sha256

    @property
    def is_stored(self) -> bool:
        """Whether the whole content is on the disk, whoever sent it."""
        return self._target.is_file()

    @property
    def offset(self) -> int:
        """Bytes that have arrived."""
        return _size(self._path)

    def append(self, at: int, chunk: bytes) -> None:
        """Write behind the `at` bytes that are there. Raises: ServiceProblem: 409 `upload_moved`: others are."""
        with self._held(at) as handle:
            handle.write(chunk)

    @contextmanager
    def whole(self) -> Iterator[Content]:
        """It, once it is what its name says; it has that name durably when the block has ended well.

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
            os.fsync(handle.fileno())
            yield Content(self._sha256, size)
            _name(self._path, self._target)

    def drop(self) -> None:
        """Delete what has arrived.

        Raises:
            ServiceProblem: 404 `upload_not_found`; 409 `upload_moved`: another request writes it.
        """
        try:
            with self._path.open("rb") as handle:
                if not _lock(handle, self._path):
                    detail = "another request writes this upload at this moment; delete it once that has ended"
                    raise ServiceProblem(409, "upload_moved", detail)
                self._path.unlink()
        except FileNotFoundError:
            detail = "no byte of this content waits for the others; GET /v1/files lists what is whole"
            raise ServiceProblem(404, "upload_not_found", detail, field="sha256") from None

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


def arriving(folder: Path, project: str) -> Path:
    """Where a project's bytes are until they are whole."""
    return folder / UNFINISHED / project


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


def _size(path: Path) -> int:
    """0 for one that is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _name(path: Path, target: Path) -> None:
    """Of bytes that are on the disk; it outlives a loss of power, as they do."""
    path.replace(target)
    sync(target.parent)
