"""A directory as a stream of tar, one chunk in memory at a time."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 20


def tar_of(folder: Path) -> Iterator[bytes]:
    """The regular files below `folder` in the order of their names; links are left out, so nothing outside is read."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield from _member(path, path.relative_to(folder).as_posix())
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(path: Path, name: str) -> Iterator[bytes]:
    with path.open("rb") as handle:
        status = path.stat()
        info = tarfile.TarInfo(name)
        info.size, info.mtime = status.st_size, status.st_mtime
        yield info.tobuf(tarfile.PAX_FORMAT)
        left = info.size
        while left and (chunk := handle.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise OSError(f"{path} became shorter while it was read")
    yield bytes(-info.size % tarfile.BLOCKSIZE)
