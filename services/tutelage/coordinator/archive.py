"""A directory as a stream of tar, one chunk in memory at a time, from any byte on."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 1 << 20
END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class _Member:
    """One file: its header as it travels, and how many bytes follow."""

    path: Path
    header: bytes
    content: int

    @property
    def padding(self) -> int:
        return -self.content % tarfile.BLOCKSIZE

    @property
    def size(self) -> int:
        return len(self.header) + self.content + self.padding

    def stream(self, start: int) -> Iterator[bytes]:
        """Its bytes from `start` on."""
        yield self.header[start:]
        begin = min(max(0, start - len(self.header)), self.content)
        yield from _content(self.path, begin, self.content - begin)
        yield bytes(min(self.padding, self.size - start))


class Archive:
    """The regular files below `folder` in the order of their names; links are left out, so nothing outside is read.

    size: of the whole in bytes; tag: the same only while names, sizes and times of the files are
    """

    def __init__(self, folder: Path) -> None:
        found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
        self._members = [_member(path, path.relative_to(folder).as_posix()) for path in found]
        self.size = sum(member.size for member in self._members) + len(END)
        headers = b"".join(member.header for member in self._members)
        self.tag = f'"{hashlib.sha256(headers).hexdigest()[:32]}"'

    def stream(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` on."""
        for member in self._members:
            if start < member.size:
                yield from member.stream(start)
            start = max(0, start - member.size)
        yield END[start:]


def _member(path: Path, name: str) -> _Member:
    status = path.stat()
    info = tarfile.TarInfo(name)
    info.size, info.mtime = status.st_size, status.st_mtime
    return _Member(path, info.tobuf(tarfile.PAX_FORMAT), status.st_size)


def _content(path: Path, begin: int, left: int) -> Iterator[bytes]:
    with path.open("rb") as handle:
        handle.seek(begin)
        while left and (chunk := handle.read(min(CHUNK_BYTES, left))):
            left -= len(chunk)
            yield chunk
    if left:
        raise OSError(f"{path} became shorter while it was read")
