"""What every client of one service is: its calls go through one Http, which it closes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import httpx2
from pydantic import BaseModel

from tutelage_client.errors import InvalidInput
from tutelage_client.http import Hints, Http, RetryPolicy
from tutelage_client.wire import Page

Item = TypeVar("Item", bound=BaseModel)


class ServiceClient:
    """The service at `url`. Methods raise ProblemResponse on a refusal, ServiceUnreachable without an answer.

    key: bearer key; transport: stands in for the network, as `httpx2.ASGITransport` does in tests
    """

    timeout_s: ClassVar[float] = 60.0  # for one answer to begin or go on
    hints: ClassVar[Hints] = Hints()

    def __init__(
        self,
        url: str,
        key: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._http = Http(url, key=key, transport=transport, retry=retry, timeout_s=self.timeout_s, hints=self.hints)

    async def close(self) -> None:
        await self._http.close()

    async def _all(self, path: str, item: type[Item]) -> list[Item]:
        """Every page of a list."""
        found: list[Item] = []
        after: str | None = None
        while True:
            page = await self._http.request_json("GET", path, Page[item], params=given(after=after, limit=10_000))
            found += page.data
            after = page.next
            if after is None:
                return found

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
