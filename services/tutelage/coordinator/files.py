"""Uploaded files: named by the hash of their content, so that the same content is the same file and is kept once.

A project has the files that it uploaded. Another one's are not there for it, even where the bytes are on the disk.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.db import now, put_new
from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import FileRow
from tutelage.serving import ServiceProblem
from tutelage_client.wire import FileView, Page


def register(session: Session, sha256: str, size: int, filename: str, project: str) -> tuple[FileView, bool]:
    """The file of this content and whether it is new; the first name stays."""
    file_id = _id(sha256)
    row = {"project": project, "id": file_id, "sha256": sha256, "bytes": size, "filename": filename}
    is_new = put_new(session, FileRow, **row, created_at=now())
    return find(session, file_id, project), is_new


def find(session: Session, file_id: str, project: str) -> FileView:
    """
    Raises:
        ServiceProblem: 404 `file_not_found`.
    """
    row = session.get(FileRow, (project, file_id))
    if row is None:
        raise ServiceProblem(404, "file_not_found", f"there is no file {file_id!r}; GET /v1/files lists them")
    return _view(row)


def with_content(session: Session, sha256: str, project: str) -> FileView | None:
    """The project's file of this content, where it has one."""
    row = session.get(FileRow, (project, _id(sha256)))
    return None if row is None else _view(row)


def files(session: Session, project: str, after: str | None, limit: int) -> Page[FileView]:
    """A project's files, the newest first."""
    query = select(FileRow).where(FileRow.project == project)
    keys = (FileRow.created_at, FileRow.id)
    return page(session, query, keys, _view, after=after, limit=limit, newest_first=True)


def _id(sha256: str) -> str:
    return f"file-{sha256[:32]}"


def _view(row: FileRow) -> FileView:
    return FileView.model_validate({name: getattr(row, name) for name in FileView.model_fields})
