"""What an owner changes in a run: its name, labels and note, and two owners at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import RunChanges, RunView
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]


@pytest.fixture
async def run(coordinator: CoordinatorClient, spec: Spec) -> RunView:
    return await coordinator.submit(spec())


async def test_name_labels_and_note_change_and_nothing_else(coordinator: CoordinatorClient, run: RunView) -> None:
    assert (run.labels, run.note, run.revision) == ({}, None, 0)
    changes = RunChanges(name="kept", labels={"team": "a", "try": "2"}, note="the one to beat")
    changed = await coordinator.change(run.id, changes)
    told = {"name": "kept", "labels": {"team": "a", "try": "2"}, "note": "the one to beat", "revision": 1}
    assert changed == run.model_copy(update=told | {"updated_at": changed.updated_at})
    assert changed.spec["name"] == run.name, "the spec stays what the weights come of"
    assert await coordinator.run(run.id) == changed
    fewer = await coordinator.change(run.id, RunChanges(labels={"team": None, "more": "x"}, note=""))
    assert (fewer.name, fewer.labels, fewer.note, fewer.revision) == ("kept", {"try": "2", "more": "x"}, None, 2)
    messages = [event.message for event in (await coordinator.event_page(run.id)).data]
    assert messages[1:] == ["its owner changed name, labels, note", "its owner changed labels, note"]


async def test_a_change_to_what_is_there_already_is_none(coordinator: CoordinatorClient, run: RunView) -> None:
    assert await coordinator.change(run.id, RunChanges(name=run.name, labels={"absent": None}, note="")) == run
    assert await coordinator.change(run.id, RunChanges()) == run


async def test_of_two_owners_at_once_the_second_is_told(http: httpx2.AsyncClient, run: RunView) -> None:
    url = f"/v1/runs/{run.id}"
    read = (await http.get(url)).headers["etag"]
    first = await http.patch(url, json={"note": "mine"}, headers={"If-Match": read})
    second = await http.patch(url, json={"note": "no, mine"}, headers={"If-Match": read})
    assert (first.status_code, second.status_code, second.json()["code"]) == (200, 412, "run_changed")
    now = (await http.get(url)).headers["etag"]
    assert now == first.headers["etag"] == second.headers["etag"] != read
    assert now in second.json()["detail"] and second.json()["field"] == "If-Match"
    assert (await http.get(url)).json()["note"] == "mine"
    for tag in ("*", f'"9", {now}'):
        assert (await http.patch(url, json={}, headers={"If-Match": tag})).status_code == 200
    assert (await http.patch(url, json={}, headers={"If-Match": f"W/{now}"})).status_code == 412


async def test_of_two_owners_who_steer_at_once_the_second_is_told(http: httpx2.AsyncClient, run: RunView) -> None:
    url = f"/v1/runs/{run.id}"
    read = (await http.get(url)).headers["etag"]
    paused = await http.post(f"{url}/pause", headers={"If-Match": read})
    cancelled = await http.post(f"{url}/cancel", headers={"If-Match": read})
    assert (paused.status_code, cancelled.status_code, cancelled.json()["code"]) == (200, 412, "run_changed")
    assert (await http.get(url)).json()["status"] == "paused"
    again = await http.post(f"{url}/pause", headers={"If-Match": cancelled.headers["etag"]})
    assert again.json()["revision"] == paused.json()["revision"], "what is so already changes nothing"
    assert (await http.post(f"{url}/cancel", headers={"If-Match": cancelled.headers["etag"]})).status_code == 200


async def test_who_asks_for_the_impossible_is_told_what_is_possible(http: httpx2.AsyncClient, run: RunView) -> None:
    url = f"/v1/runs/{run.id}"
    assert (await http.post(f"{url}/cancel")).status_code == 200
    problem = (await http.post(f"{url}/pause")).json()
    assert (problem["status"], problem["code"], problem["allowed"]) == (409, "run_is_final", ["cancel", "fork"])
    assert "is cancelled, which does not allow pause; it allows cancel, fork" in problem["detail"]


async def test_what_a_trainer_reports_leaves_the_etag(
    http: httpx2.AsyncClient, coordinator: CoordinatorClient, worker: WorkerClient, run: RunView
) -> None:
    before = (await http.get(f"/v1/runs/{run.id}")).headers["etag"]
    await worker.lease_run(run.id, "trainer")
    changed = await coordinator.change(run.id, RunChanges(note="while it starts"), revision=run.revision)
    assert (changed.revision, before) == (1, '"0"')
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.change(run.id, RunChanges(note="late"), revision=run.revision)
    assert (refused.value.status, refused.value.code) == (412, "run_changed")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a setting": ({"spec": {"seed": 1}}, "spec"),
    "the status": ({"status": "succeeded"}, "status"),
    "a name with a space": ({"name": "a b"}, "name"),
    "a long label": ({"labels": {"k": "v" * 513}}, "labels.k"),
    "a note beyond its length": ({"note": "n" * 4097}, "note"),
    "a note that is no text": ({"note": "a\0b"}, "note"),
    "too many labels": ({"labels": {str(i): "" for i in range(17)}}, "labels"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_changed_is_refused_with_its_field(
    case: str, http: httpx2.AsyncClient, coordinator: CoordinatorClient, run: RunView
) -> None:
    body, field = REFUSED[case]
    answer = await http.patch(f"/v1/runs/{run.id}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), answer.text
    assert answer.json()["field"] == field
    assert await coordinator.run(run.id) == run


async def test_a_run_that_is_not_there_cannot_be_changed(http: httpx2.AsyncClient) -> None:
    answer = await http.patch("/v1/runs/run-nothere", json={"note": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "run_not_found")
