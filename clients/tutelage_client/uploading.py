"""A file on its way to the coordinator, in parts: whatever breaks, what has arrived is not sent again."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage_client.disk import Chunks
from tutelage_client.errors import InvalidInput, ProblemResponse, ServiceUnreachable, TutelageError
from tutelage_client.http import REPEATED_STATUSES, Http
from tutelage_client.retrying import Attempts, RetryPolicy
from tutelage_client.wire import FileView, UploadView
from tutelage_client.wire.message import read_reply

PART_BYTES = 16 << 20  # what stands between the two may hold back a body until it is whole, or bound its size
LAST_ANSWER_S, CHECKED_BYTES_PER_S = 60.0, 50e6  # behind the last part the whole content is read again there

Progress = Callable[[int, int], object]


async def upload_file(
    http: Http, path: Path, filename: str, progress: Progress | None, patience: RetryPolicy | None
) -> FileView:
    """Send what the coordinator lacks of a file. After what may pass, such as a cut, it tells where to go on.

    Raises:
        InvalidInput: the file became shorter meanwhile.
        ProblemResponse, ServiceUnreachable: it refuses, or for longer than `patience` nothing arrives there.
    """
    upload = FileUpload(http, path, filename, *await _hashed(path), progress or (lambda _, __: None))
    policy = patience or http.retry
    stands, vain = await upload.ask(), None
    while stands.file is None:
        arrived = stands.offset
        try:
            stands = await upload.send(arrived)
        except TutelageError as error:
            vain = vain or Attempts(policy)
            if not _may_pass(error) or not await vain.again():  # the wait lets arrive what was on its way
                raise
            stands = await _asked(upload, policy)
        if stands.offset > arrived:
            vain = None
    return stands.file


@dataclass(frozen=True, slots=True)
class FileUpload:
    """One content: its hash and size. `http` repeats no part by itself, as a part of it may have arrived."""

    http: Http
    path: Path
    filename: str
    sha256: str
    size: int
    progress: Progress

    async def ask(self) -> UploadView:
        return await self.http.request_json("GET", self._url, UploadView)

    async def send(self, start: int) -> UploadView:
        """The next part, at whose end the whole is checked if it is the last; one of no bytes has it checked again."""
        count = max(0, min(PART_BYTES, self.size - start))
        is_last = start + count >= self.size
        headers = {"Upload-Offset": start, "Upload-Length": self.size, "Content-Length": count}
        answer = await self.http.send(
            "PATCH",
            self._url,
            self._part(start, count),
            params={"filename": self.filename},
            headers={name: str(value) for name, value in headers.items()},
            timeout_s=LAST_ANSWER_S + self.size / CHECKED_BYTES_PER_S if is_last else None,
        )
        return read_reply(UploadView, answer.content)

    @property
    def _url(self) -> str:
        return f"/v1/uploads/{self.sha256}"

    async def _part(self, start: int, count: int) -> AsyncIterator[bytes]:
        sent = start
        self.progress(sent, self.size)
        async for chunk in Chunks(self.path, start, count):
            yield chunk
            sent += len(chunk)
            self.progress(sent, self.size)
        if sent < start + count:
            raise InvalidInput(f"{self.path} became shorter while it was uploaded; upload it again")


async def _asked(upload: FileUpload, policy: RetryPolicy) -> UploadView:
    attempts = Attempts(policy)
    while True:
        try:
            return await upload.ask()
        except TutelageError as error:
            if not _may_pass(error) or not await attempts.again():
                raise


def _may_pass(error: TutelageError) -> bool:
    if isinstance(error, ProblemResponse):
        return error.status in REPEATED_STATUSES or error.code == "upload_moved"
    return isinstance(error, ServiceUnreachable)


async def _hashed(path: Path) -> tuple[str, int]:
    """sha256 and size, read in a thread."""
    digest, size = hashlib.sha256(), 0
    async for chunk in Chunks(path):
        await asyncio.to_thread(digest.update, chunk)
        size += len(chunk)
    return digest.hexdigest(), size
