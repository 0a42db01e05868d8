"""JSON over HTTP with an upstream. Its answers are not trusted: they have a size limit, and must be JSON objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2

from tutelage.engines.upstream.calls import Calls
from tutelage.engines.upstream.failures import TryAgain, UpstreamFailed, UpstreamRefused
from tutelage_client.errors import InvalidInput
from tutelage_client.http import retry_after_s

MAX_ANSWER_BYTES = 1 << 30
_SAID_CHARS = 300


class UpstreamHttp:
    """GET and POST of JSON. key: bearer key"""

    def __init__(self, calls: Calls, key: str | None) -> None:
        self._calls = calls
        self.url = calls.url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        # No read timeout of its own: the deadline of a call cancels the request, which the server then drops.
        timeout = httpx2.Timeout(None, connect=5.0)
        self._client = httpx2.AsyncClient(base_url=calls.url, headers=headers, timeout=timeout)

    async def get(self, path: str) -> dict[str, Any]:
        """Raises: UpstreamFailed in its kinds."""
        return _object(await self._calls.make(lambda: self._send("GET", path, None)), path)

    async def post(self, path: str, body: dict[str, Any], tokens: int = 0) -> dict[str, Any]:
        """tokens: that are scored. Raises: UpstreamFailed in its kinds."""
        return _object(await self.post_any(path, body, tokens), path)

    async def post_any(self, path: str, body: dict[str, Any], tokens: int = 0) -> Any:
        """As `post`, where the answer need not be an object."""
        return await self._calls.make(lambda: self._send("POST", path, body), tokens)

    async def tell(self, path: str, body: dict[str, Any]) -> None:
        """As `post`, where nothing is answered but that it is done."""
        await self._calls.make(lambda: self._content("POST", path, body))

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        return _json(await self._content(method, path, body), path)

    async def _content(self, method: str, path: str, body: dict[str, Any] | None) -> bytes:
        try:
            async with self._client.stream(method, path, json=body) as answer:
                content = await _read(answer)
        except httpx2.TransportError as error:
            raise TryAgain("unreachable", f"{path}: {error or type(error).__name__}") from error
        if answer.is_success:
            return content
        raise_for_status(answer.status_code, f"{path}: {said_in(content)}", retry_after_s(answer.headers))
        raise UpstreamFailed(f"{path} answered with status {answer.status_code}")


def raise_for_status(status: int, reason: str, at_least_s: float) -> None:
    """Raise what an error status means: try again, or not."""
    if status in (408, 429, 503, 529):
        raise TryAgain("overloaded", f"status {status} at {reason}", at_least_s)
    if status >= 500:
        raise TryAgain("broken", f"status {status} at {reason}", at_least_s)
    if status in (401, 403):
        raise UpstreamRefused(status, f"the upstream forbids {reason} (status {status}); check --api-key-file")
    if status >= 400:
        raise UpstreamRefused(status, f"the upstream refuses {reason} (status {status})")


def read_key(path: Path | None) -> str | None:
    """The key in a file of one line; None without a file.

    Raises:
        InvalidInput: not readable, or empty.
    """
    if path is None:
        return None
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the API key in {path}: {error}", "api_key_file") from error
    if not key or len(key.split()) != 1:
        raise InvalidInput(f"{path} holds no API key; write the key on one line", "api_key_file")
    return key


def said_in(content: bytes) -> str:
    """What an error's body says, short and on one line."""
    try:
        body = json.loads(content)
        error = body.get("error", body) if isinstance(body, dict) else body
        said = error.get("message") or error.get("detail") or error if isinstance(error, dict) else error
    except ValueError:
        said = content[:_SAID_CHARS].decode(errors="replace")
    return " ".join(str(said).split())[:_SAID_CHARS] or "no reason given"


async def _read(answer: httpx2.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise UpstreamFailed(f"an answer is over {MAX_ANSWER_BYTES} bytes; ask for a smaller top_k")
        parts.append(part)
    return b"".join(parts)


def _json(content: bytes, path: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise UpstreamFailed(f"{path} answered with something that is not JSON") from error


def _object(body: Any, path: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise UpstreamFailed(f"{path} answered with JSON that is no object")
    return body
