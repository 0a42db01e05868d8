"""What a coordinator has beside runs: files, teachers, keys, and the record of who did what."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

from tutelage_client.client import ServiceClient, given
from tutelage_client.disk import create
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy
from tutelage_client.uploading import Progress, upload_file
from tutelage_client.wire import (
    Action,
    AuditEntry,
    FileView,
    KeyRequest,
    KeyView,
    NewKey,
    Page,
    TeacherInfo,
    TeacherRegistration,
    TeacherView,
    UploadView,
)
from tutelage_client.wire.message import read_reply


class StoreClient(ServiceClient):
    """Files, teachers, keys and audit of the coordinator at `url`."""

    async def teachers(self) -> list[TeacherView]:
        return await self._all("/v1/teachers", TeacherView)

    async def register_teacher(self, name: str, url: str, info: TeacherInfo) -> TeacherView:
        """Enter or refresh a teacher under `name`; without a refresh it counts as unavailable after 20 seconds."""
        body = TeacherRegistration(name=name, url=url, info=info)
        return await self._http.request_json("POST", "/v1/teachers", TeacherView, body, repeatable=True)

    async def remove_teacher(self, name: str) -> None:
        """Take a stopped teacher off the list; one that still runs registers itself again."""
        await self._http.request_json("DELETE", f"/v1/teachers/{quote(name, safe='')}", type(None))

    async def create_key(self, request: KeyRequest, idempotency_key: str | None = None) -> NewKey:
        """A key with its secret. Not repeated by itself, as a lost secret is not told again.

        With an idempotency key the same request again makes no other one: it is refused with the id of the first.
        """
        headers = given(**{"Idempotency-Key": idempotency_key})
        return await self._http.request_json("POST", "/v1/keys", NewKey, request, headers=headers)

    async def keys(self) -> list[KeyView]:
        """Every key that this client's own administers, the newest first; revoked ones stay."""
        return await self._all("/v1/keys", KeyView)

    async def revoke_key(self, key_id: str) -> KeyView:
        """Have the key refused from now on; again changes nothing."""
        return await self._http.request_json("DELETE", f"/v1/keys/{quote(key_id, safe='')}", KeyView, repeatable=True)

    async def audit(
        self,
        *,
        after: str | None = None,
        limit: int = 50,
        actor: str | None = None,
        action: Action | str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Page[AuditEntry]:
        """One page of who did what, the newest first. actor: a key's id or name; since, until: with their time zone"""
        times = {"since": since and since.isoformat(), "until": until and until.isoformat()}
        params = given(after=after, limit=limit, actor=actor, action=action, target=target, **times)
        return await self._http.request_json("GET", "/v1/audit", Page[AuditEntry], params=params)

    async def upload(
        self,
        content: Path | str | bytes,
        filename: str | None = None,
        *,
        progress: Progress | None = None,
        patience: RetryPolicy | None = None,
    ) -> FileView:
        """Upload bytes in one request, or the file of a path in parts; the same content is the same file.

        A file goes on where its upload broke, within a day also that of another process. Nothing is sent of what the
        project has already.

        progress: called with the bytes that were sent of the file, and with all that it has
        patience: how long it waits for the service once that was there; by default as long as any other call
        """
        if not isinstance(content, bytes):
            path = Path(content)
            return await upload_file(self._http, path, filename or path.name, progress, patience)
        params = {"filename": filename or "upload"}
        answer = await self._http.send("POST", "/v1/files", content, params=params, repeatable=True)
        return read_reply(FileView, answer.content)

    async def uploaded(self, sha256: str) -> UploadView:
        """How much the project has sent of the content with this hash."""
        return await self._http.request_json("GET", f"/v1/uploads/{sha256}", UploadView)

    async def files(self) -> list[FileView]:
        """Every uploaded file, the newest first."""
        return await self._all("/v1/files", FileView)

    async def delete_file(self, file_id: str) -> None:
        """Delete an uploaded file, as long as no run needs it that has not ended."""
        await self._http.request_json("DELETE", f"/v1/files/{quote(file_id, safe='')}", type(None))

    async def delete_upload(self, sha256: str) -> None:
        """Delete what has arrived of a content that is not whole."""
        await self._http.request_json("DELETE", f"/v1/uploads/{sha256}", type(None))

    async def download_file(self, file_id: str, path: Path | str) -> Path:
        """Write an uploaded file to `path`, whole or not at all.

        Raises:
            InvalidInput: what arrived is not the content that the id names.
        """
        target = Path(path)
        part = target.with_name(target.name + ".part")
        try:
            digest = await self._save(f"/v1/files/{file_id}/content", part)
            if file_id != f"file-{digest[:32]}":
                raise InvalidInput(f"{file_id} arrived with sha256 {digest}, which is other content; download it again")
            return part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    async def _save(self, url: str, path: Path) -> str:
        """Stream a body to `path`; returns its sha256."""
        digest = hashlib.sha256()
        handle = await asyncio.to_thread(create, path)
        with handle:
            async for chunk in self._http.download(url):
                digest.update(chunk)
                await asyncio.to_thread(handle.write, chunk)
        return digest.hexdigest()
