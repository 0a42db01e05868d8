"""What every client of one service is: its calls go through one Http, which it closes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx2

from tutelage_client.errors import InvalidInput
from tutelage_client.http import Http, RetryPolicy


class ServiceClient:
    """The service at `url`. Methods raise ProblemResponse on a refusal, ServiceUnreachable without an answer.

    key: bearer key; transport: stands in for the network, as `httpx2.ASGITransport` does in tests
    """

    timeout_s: ClassVar[float] = 60.0  # for one answer to begin or go on

    def __init__(
        self,
        url: str,
        key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._http = Http(url, key=key, transport=transport, retry=retry, timeout_s=self.timeout_s)

    async def close(self) -> None:
        await self._http.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def given(**values: Any) -> dict[str, Any]:
    """Parameters of a query: those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def read_key(path: Path) -> str:
    """The bearer key in a file.

    Raises:
        InvalidInput: the file cannot be read or holds something else than one key.
    """
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the key file {path}: {getattr(error, 'strerror', error)}") from error
    if not re.fullmatch("[!-~]+", text):
        raise InvalidInput(f"the key file {path} must hold one key, in ASCII and without blanks, and nothing else")
    return text
