"""How files come in: a body at once, or in parts that go on where a connection broke.

The parts take `Upload-Offset` and `Upload-Length` from the IETF's draft of resumable uploads (draft-ietf-httpbis-
resumable-upload), which has them from tus, and the 409 that tells where an upload stands. It is not the whole protocol:
an upload needs no request that creates it, as the hash of the content is its name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import files
from tutelage.coordinator.audit import Deed, DeedOf
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.uploads import STOP, Partial, Room, Upload, arriving
from tutelage.serving import Responses, ServiceProblem, again, answers, body_of
from tutelage_client.wire import FileView, UploadView
from tutelage_client.wire.forms import SHA256

RAW = "application/octet-stream"
Filename = Annotated[str, Query(min_length=1, max_length=255, description="for people; the id is the content's hash")]
Sha256 = Annotated[str, Path(pattern=SHA256, description="of the whole content, in lower-case hex")]
Offset = Annotated[int, Header(alias="Upload-Offset", ge=0, description="bytes that are there: the body begins behind")]
Length = Annotated[int, Header(alias="Upload-Length", ge=0, description="bytes of the whole content")]


def add_uploads(api: APIRouter, database: Database, settings: Settings) -> None:
    _add_whole(api, database, settings)
    _add_parts(api, database, settings)


def _add_whole(api: APIRouter, database: Database, settings: Settings) -> None:
    made = again(FileView) | answers("project_full")

    @api.post("/files", status_code=201, tags=["files"], responses=made, openapi_extra=body_of(None, RAW))
    async def upload(request: Request, response: Response, deed: DeedOf, filename: Filename = "upload") -> FileView:
        """Store the raw body. Content that is there already is the same file (200 instead of 201)."""
        room = await run_in_threadpool(_room, database, settings, deed.by.project)
        upload = await run_in_threadpool(Upload, settings.files, deed.by.project)
        with upload:
            async for chunk in request.stream():
                await run_in_threadpool(_take, room, upload.write, chunk)
            file, is_new = await run_in_threadpool(_finish, database, deed, upload, filename, room.most)
        response.status_code = 201 if is_new else 200
        return file


def _add_parts(api: APIRouter, database: Database, settings: Settings) -> None:
    def partial(sha256: str, project: str) -> Partial:
        return Partial(settings.files, project, sha256)

    @api.get("/uploads/{sha256}", tags=["files"])
    def get_upload(sha256: Sha256, caller: CallerOf) -> UploadView:
        """How much of a content the project has sent: 0 bytes, some of them, or the file where it has it already."""
        return _standing(database, partial(sha256, caller.project), sha256, caller.project)

    @api.patch("/uploads/{sha256}", status_code=201, tags=["files"], responses=_PARTS, openapi_extra=body_of(None, RAW))
    async def append_to_upload(
        sha256: Sha256,
        request: Request,
        response: Response,
        deed: DeedOf,
        offset: Offset,
        length: Length,
        filename: Filename = "upload",
    ) -> UploadView:
        """Store the raw body behind what has arrived; what comes before the connection breaks stays, for a day.

        The part with which the content is whole makes the file (201), if it hashes to its name.
        """
        _check_length(length, settings.max_file_bytes)
        sent = partial(sha256, deed.by.project)
        found = await run_in_threadpool(_standing, database, sent, sha256, deed.by.project)
        response.status_code = 200
        if found.file is None:
            room = await run_in_threadpool(_room, database, settings, deed.by.project, sha256)
            await run_in_threadpool(room.check, length - sent.offset)
            offset = await _receive(request, sent, offset, length, room)
            if offset < length:
                return UploadView(sha256=sha256, offset=offset)
            file, is_new = await run_in_threadpool(_finish, database, deed, sent, filename, room.most)
            response.status_code = 201 if is_new else 200
            found = UploadView(sha256=sha256, offset=file.bytes, file=file)
        return found

    gone = answers("upload_not_found", "upload_moved")

    @api.delete("/uploads/{sha256}", status_code=204, tags=["files"], responses=gone)
    def delete_upload(sha256: Sha256, deed: DeedOf) -> None:
        """Delete what has arrived of a content that is not whole."""
        with database.write() as session:
            deed.tell(session, files.id_of(sha256))
            partial(sha256, deed.by.project).drop()


_PARTS: Responses = {
    200: {"description": "not whole yet, or it is there already", "model": UploadView},
    **answers("upload_moved", "other_content", "project_full"),
}


def _check_length(length: int, limit: int) -> None:
    if length > limit:
        detail = f"a file may have {limit} bytes here and this one has {length}; --max-file-bytes of the coordinator"
        raise ServiceProblem(413, "too_large", detail, field="Upload-Length")


def _standing(database: Database, sent: Partial, sha256: str, project: str) -> UploadView:
    """A file whose bytes are gone from the disk is not there: it can be uploaded again."""
    with database.read() as session:
        file = files.with_content(session, sha256, project)
    if file is None or not sent.is_stored:
        return UploadView(sha256=sha256, offset=sent.offset)
    return UploadView(sha256=sha256, offset=file.bytes, file=file)


def _room(database: Database, settings: Settings, project: str, sha256: str | None = None) -> Room:
    """What the project may take beside the content with this hash, by its files as they are now."""
    with database.read() as session:
        whole = files.taken(session, project, but=sha256)
    return Room(project, settings.max_project_bytes, whole, arriving(settings.files, project))


def _take(room: Room, write: Callable[..., None], *chunk: Any) -> None:
    """chunk: its bytes, behind their place where `write` wants it"""
    room.check(len(chunk[-1]))
    write(*chunk)


async def _receive(request: Request, sent: Partial, offset: int, length: int, room: Room) -> int:
    """Append a body as it arrives; the new offset. One without bytes still comes as an empty chunk, and is checked."""
    async for chunk in request.stream():
        if chunk and offset + len(chunk) > length:
            detail = f"the body goes on behind the {length} bytes of the whole content; send it up to there"
            raise ServiceProblem(413, "too_large", detail, field="Upload-Length", headers=STOP)
        await run_in_threadpool(_take, room, sent.append, offset, chunk)
        offset += len(chunk)
    return offset


def _finish(
    database: Database, deed: Deed, sent: Upload | Partial, filename: str, most: int | None
) -> tuple[FileView, bool]:
    """The row before the name of the bytes: where the database does not answer, nothing is to be sent again.

    Nor does whoever drops the bytes of a file that is deleted at this moment take those away that come under its name.
    """
    with sent.whole() as content, database.write() as session:
        file, is_new = files.register(session, content, filename, deed.by.project, most)
        if is_new:
            deed.tell(session, file.id)
        return file, is_new
