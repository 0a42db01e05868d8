"""Uploaded files: named by the hash of their content, so that the same content is the same file and is kept once.

A project has the files that it uploaded. Another one's are not there for it, even where the bytes are on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import REGISTERING, Database, hold, now, put_new
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import FileRow, RunRow
from tutelage.coordinator.uploads import Content, Room
from tutelage.serving import ServiceProblem
from tutelage_client.wire import FileView, Page, RunStatus

_MOST_NAMED = 20  # runs in one sentence


def register(
    session: Session, content: Content, filename: str, project: str, most: int | None = None
) -> tuple[FileView, bool]:
    """The file of this content and whether it is new; the first name stays. most: bytes of all files of the project

    Raises:
        ServiceProblem: 413 `project_full`.
    """
    hold(session.connection(), REGISTERING)
    Room(project, most, whole=taken(session, project, but=content.sha256)).check(content.bytes)
    file_id = id_of(content.sha256)
    row = {"project": project, "id": file_id, "sha256": content.sha256, "bytes": content.bytes, "filename": filename}
    is_new = put_new(session, FileRow, **row, created_at=now())
    return find(session, file_id, project), is_new


def taken(session: Session, project: str, *, but: str | None = None) -> int:
    """Bytes of all files of a project. but: the sha256 of one that is not counted"""
    own = select(func.coalesce(func.sum(FileRow.bytes), 0)).where(FileRow.project == project)
    return int(session.scalars(own if but is None else own.where(FileRow.sha256 != but)).one())


def find(session: Session, file_id: str, project: str) -> FileView:
    """
    Raises:
        ServiceProblem: 404 `file_not_found`.
    """
    row = session.get(FileRow, (project, file_id))
    if row is None:
        raise _not_found(file_id)
    return _view(row)


def with_content(session: Session, sha256: str, project: str) -> FileView | None:
    """The project's file of this content, where it has one."""
    row = session.get(FileRow, (project, id_of(sha256)))
    return None if row is None else _view(row)


def files(session: Session, project: str, after: str | None, limit: int) -> Page[FileView]:
    """A project's files, the newest first."""
    query = select(FileRow).where(FileRow.project == project)
    keys = (FileRow.created_at, FileRow.id)
    return page(session, query, keys, _view, after=after, limit=limit, newest_first=True)


def remove(session: Session, file_id: str, project: str) -> str:
    """Take a file from its project; the sha256 of the content, which another project may still have.

    Raises:
        ServiceProblem: 404 `file_not_found`; 409 `file_in_use` while a run that has not ended names it.
    """
    row = session.get(FileRow, (project, file_id), with_for_update=True)  # a submission that names it waits, or did
    if row is None:
        raise _not_found(file_id)
    if needing := list(_needing(session, file_id, project)):
        more = f" and {len(needing) - _MOST_NAMED} more" if len(needing) > _MOST_NAMED else ""
        runs = ", ".join(needing[:_MOST_NAMED]) + more
        detail = f"{file_id} is named by runs that have not ended: {runs}; wait for their end or cancel them"
        raise ServiceProblem(409, "file_in_use", detail)
    session.delete(row)
    return row.sha256


def drop(database: Database, folder: Path, sha256: str) -> None:
    """Delete the bytes of a content that no project has; whoever registers it next brings bytes of its own."""
    with database.write() as session:
        hold(session.connection(), REGISTERING)
        if session.scalar(select(FileRow.id).where(FileRow.sha256 == sha256).limit(1)) is None:
            (folder / sha256).unlink(missing_ok=True)


def id_of(sha256: str) -> str:
    return f"file-{sha256[:32]}"


def _needing(session: Session, file_id: str, project: str) -> Iterator[str]:
    """The runs that a trainer may still read it for, each with its status."""
    own = select(RunRow.id, RunRow.status, RunRow.spec).where(RunRow.project == project)
    going_on = own.where(RunRow.status.in_([status for status in RunStatus if not status.final]))
    for run_id, status, spec in session.execute(going_on.order_by(RunRow.created_at, RunRow.id)):
        if f"file:{file_id}" in _inputs(spec):
            yield f"{run_id} ({status})"


def _inputs(spec: dict[str, Any]) -> list[str | None]:
    """What a run's stored spec names as paths or files; that of an older release may lack some."""
    data, models = spec["data"], [spec["student"], spec.get("reference") or {}]
    return [data.get("train"), data.get("eval"), *(model.get("model") for model in models)]


def _not_found(file_id: str) -> ServiceProblem:
    return ServiceProblem(404, "file_not_found", f"there is no file {file_id!r}; GET /v1/files lists them")


def _view(row: FileRow) -> FileView:
    return FileView.model_validate({name: getattr(row, name) for name in FileView.model_fields})
