"""What runs refer to: uploaded files and registered teachers."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

from tutelage.addresses import Allowed
from tutelage.coordinator import files, teachers
from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import DeedOf
from tutelage.coordinator.callers import CallerOf
from tutelage.coordinator.db import Database
from tutelage.coordinator.routes.params import After, Limit
from tutelage.coordinator.routes.uploads import RAW, add_uploads
from tutelage.coordinator.settings import Settings
from tutelage.serving import ServiceProblem, answers, in_bytes
from tutelage_client.wire import FileView, Page, TeacherRegistration, TeacherView


def router(database: Database, settings: Settings) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1", responses=answers("database_unavailable"))
    add_uploads(api, database, settings)
    _add_files(api, database, settings.files)
    _add_teachers(api, database, Allowed(settings.teacher_addresses))
    return api


def _add_files(api: APIRouter, database: Database, folder: Path) -> None:
    """folder: where their bytes are, each file named by its sha256."""

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

    kept = answers("file_not_found", "file_in_use")

    @api.delete("/files/{file_id}", status_code=204, tags=["files"], responses=kept)
    def delete_file(file_id: str, deed: DeedOf) -> None:
        """Delete a file that no run needs which has not ended. It can be uploaded again."""
        with database.write() as session:
            sha256 = files.remove(session, file_id, deed.by.project)
            deed.tell(session, file_id)
        files.drop(database, folder, sha256)


def _add_teachers(api: APIRouter, database: Database, allowed: Allowed) -> None:
    """allowed: where they may be"""

    @api.post("/teachers", tags=["teachers"], responses=answers("address_not_allowed", "teacher_name_taken"))
    def register_teacher(teacher: TeacherRegistration, deed: DeedOf) -> TeacherView:
        """Enter a teacher or refresh it; one that was silent for 20 seconds counts as unavailable."""
        told = teachers.placed(teacher, allowed)
        with database.write() as session:
            view, is_news = teachers.register(session, told, deed.by.project)
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
