"""The little of the Kubernetes API that a launcher needs, as the service account that a pod is given."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2

from tutelage.coordinator.launchers.base import LaunchFailed

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Resource:
    """One kind of object: `api` is its group and version, as in "apis/batch/v1"."""

    api: str
    plural: str


PODS = Resource("api/v1", "pods")


@dataclass
class Cluster:
    """One namespace of the API server at `url`.

    account: a folder with `token`, which the kubelet renews, `namespace`, and `ca.crt` where the URL is https
    """

    url: str
    account: Path
    _http: httpx2.AsyncClient = field(init=False, repr=False)
    _namespace: str = field(init=False)

    def __post_init__(self) -> None:
        """
        Raises:
            LaunchFailed: the account's files cannot be read.
        """
        try:
            self._namespace = (self.account / "namespace").read_text().strip()
            ca = ssl.create_default_context(cafile=str(self.account / "ca.crt")) if self._is_tls else True
        except OSError as error:
            raise LaunchFailed(
                f"cannot read the service account in {self.account}: {error.strerror}; the launcher `kubernetes` runs "
                "in a pod whose account is mounted there"
            ) from error
        self._http = httpx2.AsyncClient(base_url=self.url, verify=ca, timeout=TIMEOUT_S)

    @property
    def _is_tls(self) -> bool:
        return self.url.startswith("https:")

    async def get(self, kind: Resource, name: str) -> dict[str, Any] | None:
        """The object, None where there is none."""
        answer = await self._ask("GET", self._path(kind, name), absent=True)
        return None if answer.status_code == HTTPStatus.NOT_FOUND else _object(answer)

    async def listed(self, kind: Resource, labels: str) -> list[dict[str, Any]]:
        """The objects with these labels, by name."""
        answer = await self._ask("GET", self._path(kind), params={"labelSelector": labels})
        return sorted(_object(answer).get("items", []), key=lambda each: each["metadata"]["name"])

    async def create(self, kind: Resource, body: dict[str, Any]) -> bool:
        """False where the name is taken."""
        answer = await self._ask("POST", self._path(kind), json=body, taken=True)
        return answer.status_code != HTTPStatus.CONFLICT

    async def patch(self, kind: Resource, name: str, changes: dict[str, Any]) -> None:
        """Merge `changes` into the object, if it is there."""
        await self._ask("PATCH", self._path(kind, name), json=changes, headers=MERGE_PATCH, absent=True)

    async def delete(self, kind: Resource, name: str) -> None:
        """Delete it, if it is there. A pod has a second to go: with none it would be forgotten before it has gone."""
        await self._ask("DELETE", self._path(kind, name), json={"gracePeriodSeconds": 1}, absent=True)

    async def log(self, pod: str, lines: int) -> str:
        """The last lines of a pod's first container; nothing where it has none yet."""
        path = f"{self._path(PODS, pod)}/log"
        answer = await self._ask("GET", path, params={"tailLines": lines}, absent=True, refused=True)
        return answer.text if answer.is_success else ""

    async def close(self) -> None:
        await self._http.aclose()

    def _path(self, kind: Resource, name: str | None = None) -> str:
        return f"/{kind.api}/namespaces/{self._namespace}/{kind.plural}{f'/{name}' if name else ''}"

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        absent: bool = False,
        taken: bool = False,
        refused: bool = False,
        **more: Any,
    ) -> httpx2.Response:
        """absent, taken, refused: whether 404, 409 or 400 is an answer, and no failure."""
        answers = {HTTPStatus.NOT_FOUND: absent, HTTPStatus.CONFLICT: taken, HTTPStatus.BAD_REQUEST: refused}
        expected = [code for code, is_answer in answers.items() if is_answer]
        try:
            headers = {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}"}
            answer = await self._http.request(method, path, headers=headers | more.pop("headers", {}), **more)
        except (httpx2.RequestError, OSError) as error:
            raise LaunchFailed(f"{self.url} does not answer: {error or type(error).__name__}") from error
        if not answer.is_success and answer.status_code not in expected:
            raise LaunchFailed(f"{self.url} answers {method} {path} with {answer.status_code}: {_why(answer)}")
        return answer


def _object(answer: httpx2.Response) -> dict[str, Any]:
    with suppress(ValueError):
        if isinstance(found := answer.json(), dict):
            return found
    raise LaunchFailed(f"{answer.url} answers with what is no object of a cluster: {answer.text[:200]!r}")


def _why(answer: httpx2.Response) -> str:
    """The sentence of a Status, which is how the API server refuses."""
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
