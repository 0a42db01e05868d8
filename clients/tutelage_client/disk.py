"""What a client reads from and writes to its own disk: uploads in chunks, a model unpacked."""

from __future__ import annotations

import asyncio
import gzip
import lzma
import shutil
import sys
import tarfile
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHUNK_BYTES = 1 << 20
_DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)


@dataclass(frozen=True, slots=True)
class Chunks:
    """The bytes of a file behind the first `start`, at most `most`: the same each time that they are iterated over."""

    path: Path
    start: int = 0
    most: int | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        handle = await asyncio.to_thread(self.path.open, "rb")
        with handle:
            handle.seek(self.start)
            left = sys.maxsize if self.most is None else self.most
            while chunk := await asyncio.to_thread(handle.read, min(CHUNK_BYTES, left)):
                left -= len(chunk)
                yield chunk


def create(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("wb")


def unpack(archive: Path, folder: Path) -> None:
    """Plain files inside `folder` and nothing else; tarfile's own filter for this is missing before Python 3.11.4.

    Raises:
        TarError: it is no tar archive, or one that holds something else.
    """
    try:
        with tarfile.open(archive) as tar:
            _extract(tar, folder.resolve())
    except _DAMAGED as error:
        raise tarfile.TarError(f"it is compressed, and damaged or cut off: {error}") from error


def _extract(tar: tarfile.TarFile, root: Path) -> None:
    for member in tar:
        target = (root / member.name).resolve()
        if not (member.isreg() or member.isdir()) or not target.is_relative_to(root):
            raise tarfile.TarError(f"{member.name!r} is no plain file inside it")
        if (source := tar.extractfile(member)) is not None:
            with source, create(target) as copy:
                shutil.copyfileobj(source, copy)
