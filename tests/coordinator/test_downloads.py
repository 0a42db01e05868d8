"""The model of a run, as an archive that is sent whole or from any byte on."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from tutelage.coordinator.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import Lease, Outcome
from tutelage_client.worker import WorkerClient


async def ended(worker: WorkerClient, lease: Lease, contents: dict[str, bytes]) -> Path:
    """The folder of the model that the run ends with."""
    model = Path(lease.artefacts) / "model-e1"
    for name, content in contents.items():
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(content)
    await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="succeeded", model_path=str(model)))
    return model


async def test_the_model_is_a_tar_of_its_directory_once_the_run_succeeded(
    coordinator: CoordinatorClient, http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease, tmp_path: Path
):
    early = await http.get(f"/v1/runs/{lease.run_id}/model")
    assert (early.status_code, early.json()["code"]) == (409, "model_not_ready")
    contents = {"weights.bin": bytes(range(256)) * 5000, "tokenizer/empty": b"", "a" * 150: b"long name"}
    model = await ended(worker, lease, contents)
    (tmp_path / "secret").write_text("not part of the model")
    (model / "link").symlink_to(tmp_path / "secret")
    body = (await http.get(f"/v1/runs/{lease.run_id}/model")).content
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        assert {m.name: tar.extractfile(m).read() for m in tar.getmembers()} == contents  # type: ignore[union-attr]
    unpacked = await coordinator.download_model(lease.run_id, tmp_path / "result")
    assert (unpacked / "weights.bin").read_bytes() == contents["weights.bin"]
    assert not (tmp_path / "result.tar.part").exists()


class Cutting(httpx2.AsyncBaseTransport):
    """Breaks the first answers off behind so many bytes of their bodies."""

    def __init__(self, app: FastAPI, *limits: int) -> None:
        self._app, self._limits = httpx2.ASGITransport(app), list(limits)
        self.statuses: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self._app.handle_async_request(request)
        self.statuses.append(answer.status_code)
        if not self._limits:
            return answer
        cut = First(await answer.aread(), self._limits.pop(0))
        return httpx2.Response(answer.status_code, headers=answer.headers, stream=cut)


class First(httpx2.AsyncByteStream):
    def __init__(self, body: bytes, most: int) -> None:
        self._body, self._most = body, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body[: self._most]
        raise httpx2.ReadError("cut")


async def test_a_model_whose_download_breaks_comes_whole(
    app: FastAPI, worker: WorkerClient, lease: Lease, tmp_path: Path
) -> None:
    contents = {"a.safetensors": bytes(range(256)) * 9, "b.json": b"{}"}
    await ended(worker, lease, contents)
    transport = Cutting(app, 100, 1000, 3)
    async with CoordinatorClient("http://127.0.0.1", transport=transport) as client:
        folder = await client.download_model(lease.run_id, tmp_path / "result")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == contents
    assert transport.statuses == [200, 206, 206, 206]


async def test_a_model_is_sent_from_any_byte_on(http: httpx2.AsyncClient, worker: WorkerClient, lease: Lease) -> None:
    model = await ended(worker, lease, {"weights": bytes(range(256)) * 3, "empty": b""})
    path = f"/v1/runs/{lease.run_id}/model"
    whole = await http.get(path)
    assert int(whole.headers["content-length"]) == len(whole.content)
    for start in range(1, len(whole.content), 97):
        rest = await http.get(path, headers={"Range": f"bytes={start}-", "If-Range": whole.headers["etag"]})
        assert (rest.status_code, rest.content) == (206, whole.content[start:])
        assert rest.headers["content-range"] == f"bytes {start}-{len(whole.content) - 1}/{len(whole.content)}"
    for unmet in ({"Range": f"bytes={len(whole.content)}-"}, {"Range": "bytes=1-2"}, {"Range": "lines=1-"}):
        assert (await http.get(path, headers=unmet)).status_code == 200
    (model / "empty").write_text("now it is not")
    changed = await http.get(path, headers={"Range": "bytes=100-", "If-Range": whole.headers["etag"]})
    assert (changed.status_code, changed.headers["etag"] != whole.headers["etag"]) == (200, True)


async def test_a_model_outside_the_artefacts_is_refused(
    worker: WorkerClient, coordinator: CoordinatorClient, lease: Lease, settings: Settings
):
    for path in ("/etc", "../other-run/model", str(settings.data_dir)):
        with pytest.raises(ProblemResponse) as refused:
            await worker.report_outcome(lease.run_id, Outcome(epoch=1, result="succeeded", model_path=path))
        assert (refused.value.status, refused.value.field) == (422, "model_path")
    assert not (await coordinator.run(lease.run_id)).status.final
