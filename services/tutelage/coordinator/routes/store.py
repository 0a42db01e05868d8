"""What runs refer to: uploaded files and registered teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from tutelage.coordinator import files, teachers
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import Deed, DeedOf
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.routes.params import After, Limit
from tutelage.serving import ServiceProblem, again, answers, body_of, in_bytes
from tutelage_client.wire import FileView, Page, TeacherRegistration, TeacherView

RAW = "application/octet-stream"
Filename = Annotated[str, Query(min_length=1, max_length=255, description="for people; the id is the content's hash")]


def router(database: Database, folder: Path) -> APIRouter:
    """folder: where the bytes of uploaded files are, each named by its sha256."""
    api = APIRouter(route_class=Guarded, prefix="/v1", responses=answers("database_unavailable"))
    _add_files(api, database, folder)
    _add_teachers(api, database)
    return api


def _add_files(api: APIRouter, database: Database, folder: Path) -> None:
    @api.post("/files", status_code=201, tags=["files"], responses=again(FileView), openapi_extra=body_of(None, RAW))
    async def upload(request: Request, response: Response, deed: DeedOf, filename: Filename = "upload") -> FileView:
        """Store the raw body. Content that is there already is the same file (200 instead of 201)."""
        sha256, size = await _receive(request, folder)
        file, is_new = await run_in_threadpool(register, sha256, size, filename, deed)
        response.status_code = 201 if is_new else 200
        return file

    def register(sha256: str, size: int, filename: str, deed: Deed) -> tuple[FileView, bool]:
        with database.write() as session:
            file, is_new = files.register(session, sha256, size, filename, deed.by.project)
            if is_new:
                deed.tell(session, file.id)
            return file, is_new

    @api.get("/files", tags=["files"])
    def list_files(caller: CallerOf, after: After = None, limit: Limit = 50) -> Page[FileView]:
        """Uploaded files, the newest first."""
        with database.read() as session:
            return files.files(session, caller.project, after, limit)

    @api.get("/files/{file_id}", tags=["files"], responses=answers("file_not_found"))
    def get_file(file_id: str, caller: CallerOf) -> FileView:
        """One file: its hash, size and name."""
        with database.read() as session:
            return files.find(session, file_id, caller.project)

    gone = in_bytes(RAW) | answers("file_not_found", "content_missing")

    @api.get("/files/{file_id}/content", response_class=FileResponse, tags=["files"], responses=gone)
    def get_content(file_id: str, caller: CallerOf) -> FileResponse:
        """The bytes, with range requests."""
        with database.read() as session:
            file = files.find(session, file_id, caller.project)
        path = folder / file.sha256
        if not path.is_file():
            raise ServiceProblem(
                404, "content_missing", f"the bytes of {file_id} are gone from disk; upload them again"
            )
        return FileResponse(path, media_type=RAW, filename=file.filename)


async def _receive(request: Request, folder: Path) -> tuple[str, int]:
    """Write a body to disk as it arrives; the size limit is the app's, by path."""
    upload = await run_in_threadpool(files.Upload, folder)
    with upload:
        async for chunk in request.stream():
            await run_in_threadpool(upload.write, chunk)
        return await run_in_threadpool(upload.keep), upload.bytes


def _add_teachers(api: APIRouter, database: Database) -> None:
    @api.post("/teachers", tags=["teachers"], responses=answers("teacher_name_taken"))
    def register_teacher(teacher: TeacherRegistration, deed: DeedOf) -> TeacherView:
        """Enter a teacher or refresh it; one that was silent for 20 seconds counts as unavailable."""
        with database.write() as session:
            view, is_news = teachers.register(session, teacher, deed.by.project)
            if is_news:
                deed.tell(session, teacher.name)
            return view

    @api.get("/teachers", tags=["teachers"])
    def list_teachers(caller: CallerOf, after: After = None, limit: Limit = 50) -> Page[TeacherView]:
        """Registered teachers by name, with address, capabilities and whether they were heard of lately."""
        with database.read() as session:
            return teachers.teachers(session, caller.project, after, limit)

    gone = answers("teacher_not_found", "teacher_in_use")

    @api.delete("/teachers/{name}", status_code=204, tags=["teachers"], responses=gone)
    def remove_teacher(name: str, deed: DeedOf) -> None:
        """Take a stopped teacher off the list; one that still runs is back within seconds."""
        with database.write() as session:
            teachers.remove(session, name, deed.by.project)
            deed.tell(session, name)
