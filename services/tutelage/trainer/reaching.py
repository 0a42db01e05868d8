"""How the trainer reaches a teacher's HTTP door: nowhere but where teachers may be, whatever the registry says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import httpx2

from tutelage.addresses import Address, Allowed, Door, door, look_up

Names = Callable[[Door], Sequence[Address]]


class Reaching(httpx2.AsyncBaseTransport):
    """Looks the teacher's host up for each request, and connects to what was looked up and may be a teacher's.

    So no later answer of a name server leads elsewhere, and the key goes where the list says. Redirects are followed by
    nobody here, and proxies of the environment are not asked.

    Raises on a request:
        NotAllowed: one of its addresses may be no teacher's; nothing was sent.
    """

    def __init__(self, url: str, allowed: Allowed, names: Names = look_up) -> None:
        """names: looks a host up

        Raises:
            InvalidInput: the URL is no teacher's.
        """
        self._door = door(url)
        self._allowed = allowed
        self._names = names
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            addresses = await asyncio.to_thread(self._names, self._door)
        except OSError as error:
            raise httpx2.ConnectError(f"the name {self._door.host} is not known here", request=request) from error
        self._allowed.check(self._door, addresses)
        *others, last = addresses
        for address in others:
            try:
                return await self._inner.handle_async_request(self._sent_to(str(address), request))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue  # nothing was sent yet
        return await self._inner.handle_async_request(self._sent_to(str(last), request))

    def _sent_to(self, address: str, request: httpx2.Request) -> httpx2.Request:
        """The same request, whose Host and certificate are those of the name."""
        return httpx2.Request(
            request.method,
            request.url.copy_with(host=address, port=self._door.port),
            headers=request.headers,
            stream=request.stream,
            extensions=dict(request.extensions) | {"sni_hostname": str(self._door.host)},
        )

    async def aclose(self) -> None:
        await self._inner.aclose()
