"""What a run leaves on the disk, as streams of bytes: its model, and the record of what it learned from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import StreamingResponse

from tutelage.coordinator import runs
from tutelage.coordinator.archive import Archive
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.serving import ServiceProblem, answers, in_bytes, in_part
from tutelage_client.history import noted
from tutelage_client.wire import RunStatus

TAR = "application/x-tar"
LINES = "application/x-ndjson"
Range = Annotated[str | None, Header(alias="Range", description="bytes=N-: from this byte on")]
IfRange = Annotated[str | None, Header(description="the ETag of what is there already; of another one all is sent")]


def add_downloads(api: APIRouter, database: Database, settings: Settings) -> None:
    gone = in_bytes(TAR) | in_part(TAR) | answers("run_not_found", "model_missing", "model_not_ready")

    @api.get("/{run_id}/model", response_class=StreamingResponse, responses=gone)
    def get_model(run_id: str, wanted: Range = None, if_range: IfRange = None) -> StreamingResponse:
        """The final model's directory as a tar stream, from a byte on where one is asked for."""
        with database.read() as session:
            run = runs.find(session, run_id)
            path, status = run.model_path, run.status
        if path is None or status is not RunStatus.SUCCEEDED:
            raise ServiceProblem(409, "model_not_ready", f"{run_id} is {status}; its model is there once it succeeded")
        if not Path(path).is_dir():
            raise ServiceProblem(404, "model_missing", f"{path} of {run_id} is not on the coordinator's disk any more")
        return _download(Archive(Path(path)), f"{run_id}.tar", wanted, if_range)

    @api.get(
        "/{run_id}/learned", response_class=StreamingResponse, responses=in_bytes(LINES) | answers("run_not_found")
    )
    def get_learned(run_id: str) -> StreamingResponse:
        """What each optimizer step of each attempt learned from, one JSON object a line: `tutelage runs check`."""
        with database.read() as session:
            runs.find(session, run_id)
        return StreamingResponse(noted(settings.artefacts(run_id) / "learned"), media_type=LINES)


def _download(archive: Archive, filename: str, wanted: str | None, if_range: str | None) -> StreamingResponse:
    """All of it, or the rest; a `Range` of another form may be passed over (RFC 9110), and is."""
    found = re.fullmatch("bytes=([0-9]{1,18})-", wanted or "")
    start = int(found[1]) if found and if_range in (None, archive.tag) and int(found[1]) < archive.size else 0
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Content-Length": str(archive.size - start),
        "ETag": archive.tag,
    }
    if start:
        headers["Content-Range"] = f"bytes {start}-{archive.size - 1}/{archive.size}"
    status = 206 if start else 200
    return StreamingResponse(archive.stream(start), status_code=status, headers=headers, media_type=TAR)
