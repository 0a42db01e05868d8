"""Server-sent events: resumed by number, ended with the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import event as listening
from sqlalchemy import update

from tutelage.coordinator import keys, runs, steering
from tutelage.coordinator.callers import ANYONE
from tutelage.coordinator.db import Database
from tutelage.coordinator.events import record
from tutelage.coordinator.stream import BATCH, POLL_S, Streams
from tutelage.coordinator.tables import KeyRow
from tutelage.serving import EVENT_STREAM, JSON
from tutelage.telemetry import CoordinatorMetrics
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import EventReport, EventView, KeyRequest, Outcome, RunView, Scope
from tutelage_client.worker import WorkerClient

Spec = Callable[..., dict[str, Any]]
SSE = {"Accept": "text/event-stream"}


def streams_over(database: Database, registry: CollectorRegistry | None = None, **settings: float) -> Streams:
    return Streams(database, CoordinatorMetrics.of(registry or CollectorRegistry()), **settings)


def frames(body: str) -> list[dict[str, str]]:
    parsed = [dict(line.split(": ", 1) for line in part.splitlines()) for part in body.split("\n\n") if part]
    return [frame for frame in parsed if "data" in frame]


@pytest.fixture
async def ended(coordinator: CoordinatorClient, worker: WorkerClient, spec: Spec) -> RunView:
    """A run that is over, with eight events."""
    run = await coordinator.submit(spec())
    assert await worker.lease("w") is not None
    for number in range(4):
        report = EventReport(epoch=1, type="log", message=f"line {number}\nand more", data={"n": number})
        await worker.report_event(run.id, report)
    await coordinator.cancel(run.id)
    run = await coordinator.run(run.id)
    assert run.status == "cancelling"
    await worker.report_outcome(run.id, Outcome(epoch=1, result="cancelled"))
    return await coordinator.run(run.id)


async def test_the_stream_of_an_ended_run_has_all_events_and_ends(http: httpx2.AsyncClient, ended: RunView):
    answer = await http.get(f"/v1/runs/{ended.id}/events", headers=SSE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    got = frames(answer.text)
    assert [frame["id"] for frame in got] == [str(n) for n in range(1, 9)]
    events = [EventView.model_validate_json(frame["data"]) for frame in got]
    assert [e.type for e in events] == [frame["event"] for frame in got]
    assert events[2].message == "line 0\nand more"
    listed = (await http.get(f"/v1/runs/{ended.id}/events")).json()["data"]
    assert [e.model_dump(mode="json") for e in events] == listed


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("text/html, application/xml;q=0.9, */*;q=0.8", JSON),
        (f"{JSON}, {EVENT_STREAM};q=0", JSON),
        (f"{EVENT_STREAM};q=0, */*", JSON),
        (f"{JSON}, {EVENT_STREAM};q=0.5", JSON),
        (f"{JSON};q=0.5, Text/Event-Stream", EVENT_STREAM),
        (f"{JSON}, {EVENT_STREAM}", EVENT_STREAM),
        ("text/*", EVENT_STREAM),
        (f"{EVENT_STREAM};q=0", None),
        (f"{EVENT_STREAM};q=2", None),
        ("text/html", None),
    ],
)
async def test_events_come_in_the_form_that_is_more_welcome(
    http: httpx2.AsyncClient, ended: RunView, accept: str, form: str | None
):
    answer = await http.get(f"/v1/runs/{ended.id}/events", headers={"Accept": accept})
    assert answer.headers["vary"] == "Accept"
    if form is None:
        told = answer.json()
        assert (answer.status_code, told["code"], told["field"]) == (406, "not_acceptable", "Accept")
    else:
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, form)


async def test_an_ended_run_with_a_long_history_is_streamed_to_its_last_event(
    http: httpx2.AsyncClient, database: Database, spec: Spec
):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
        run = runs.find(session, run_id, lock=True)
        for number in range(BATCH):
            record(session, run, "log", f"line {number}")
        steering.cancel(session, run_id)
    answer = await http.get(f"/v1/runs/{run_id}/events", headers=SSE)
    assert [int(frame["id"]) for frame in frames(answer.text)] == list(range(1, BATCH + 3))


@pytest.mark.parametrize("last", range(9))
async def test_a_stream_resumed_anywhere_has_exactly_the_rest(last: int, http: httpx2.AsyncClient, ended: RunView):
    answer = await http.get(f"/v1/runs/{ended.id}/events", headers=SSE | {"Last-Event-ID": str(last)})
    assert [int(frame["id"]) for frame in frames(answer.text)] == list(range(last + 1, 9))


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("x", "'x' is not the number of an event"),
        ("-1", "'-1' is not the number of an event"),
        (
            "9",
            "9 is beyond this run's newest event, which is 8; give the last one that you have, or none for all of them",
        ),
    ],
)
async def test_a_last_id_of_no_event_is_refused(last: str, sentence: str, http: httpx2.AsyncClient, ended: RunView):
    path = f"/v1/runs/{ended.id}/events"
    for name, request in (
        ("Last-Event-ID", http.get(path, headers=SSE | {"Last-Event-ID": last})),
        ("after", http.get(path, headers=SSE, params={"after": last})),
    ):
        answer = await request
        told = answer.json()
        assert (answer.status_code, told["code"], told["field"]) == (422, "invalid_input", name)
        assert told["detail"] == f"{name}: {sentence}"


async def test_a_stream_without_events_says_that_it_is_still_there(database: Database, spec: Spec):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
    stream = streams_over(database, keep_alive_s=0.01).follow(run_id, 0, asyncio.Event(), "anyone")
    await following(stream)
    for _ in range(3):
        assert await asyncio.wait_for(anext(stream), 10) == b": still here\n\n"
    with database.write() as session:
        steering.cancel(session, run_id)
    assert b'"to":"cancelled"' in await following(stream), "and what happens comes all the same"


async def test_events_arrive_while_the_run_goes_on(database: Database, spec: Spec):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
    stream = streams_over(database).follow(run_id, 0, asyncio.Event(), "anyone")
    assert b'"to":"queued"' in await following(stream)
    with database.write() as session:
        steering.pause(session, run_id)
    assert b'"to":"paused"' in await following(stream)
    with database.write() as session:
        steering.cancel(session, run_id)
    assert b'"to":"cancelled"' in await following(stream)
    with pytest.raises(StopAsyncIteration):
        await following(stream)


async def test_a_stream_ends_when_its_process_stops(database: Database, spec: Spec):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
    stopping = asyncio.Event()
    stream = streams_over(database).follow(run_id, 0, stopping, "anyone")
    await following(stream)
    stopping.set()
    with pytest.raises(StopAsyncIteration):
        await following(stream)


async def test_a_stream_ends_with_the_key_of_its_reader_and_no_other_does(database: Database, spec: Spec):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
        request = KeyRequest(name="k", scopes=frozenset({Scope.RUNS_READ}))
        revoked, expiring, other = (keys.create(session, ANYONE, request).key.id for _ in range(3))
    registry = CollectorRegistry()
    streams = streams_over(database, registry)
    opened = {key: streams.follow(run_id, 0, asyncio.Event(), key) for key in (revoked, expiring, other)}
    await asyncio.gather(*map(following, opened.values()))
    waiting = {key: asyncio.ensure_future(following(stream)) for key, stream in opened.items()}
    with database.write() as session:
        keys.revoke(session, ANYONE, revoked)
        session.execute(update(KeyRow).where(KeyRow.id == expiring).values(expires_at=1.0))
    assert registry.get_sample_value("tutelage_sse_clients") == 3
    for key in (revoked, expiring):
        with pytest.raises(StopAsyncIteration):
            await waiting[key]
    assert registry.get_sample_value("tutelage_sse_clients") == 1
    with database.write() as session:
        steering.cancel(session, run_id)
    assert b'"to":"cancelled"' in await waiting[other]
    with pytest.raises(StopAsyncIteration):
        await following(opened[other])
    told = (registry.get_sample_value(f"tutelage_sse_{name}") for name in ("clients", "dropped_total"))
    assert tuple(told) == (0, 2), "the third was read to the end of its run"


async def test_however_many_streams_are_open_one_query_at_a_time_looks_for_news(
    database: Database, spec: Spec, until: Callable[..., Any]
):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
    streams, asked = streams_over(database), list[str]()

    def looks() -> int:
        return sum("runs.last_event" in each for each in asked)

    listening.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    opened = [streams.follow(run_id, 0, asyncio.Event(), "anyone") for _ in range(50)]
    await asyncio.gather(*map(following, opened))
    await until(lambda: looks() >= 2)  # what the first saw is then known to every stream
    asked.clear()
    waiting = [asyncio.ensure_future(following(stream)) for stream in opened]
    await asyncio.wait(waiting, timeout=4 * POLL_S)
    assert 1 <= looks() <= 5
    assert not any("FROM events" in each for each in asked)
    with database.write() as session:
        steering.cancel(session, run_id)
    assert all(b'"to":"cancelled"' in frame for frame in await asyncio.gather(*waiting))
    for stream in opened:
        with pytest.raises(StopAsyncIteration):
            await following(stream)


async def test_a_reader_that_fell_behind_gets_every_event_once(database: Database, spec: Spec):
    with database.write() as session:
        run_id = runs.submit(session, spec(), None)[0].id
    streams = streams_over(database)
    slow, quick = (streams.follow(run_id, 0, asyncio.Event(), "anyone") for _ in range(2))
    await following(slow)
    with database.write() as session:
        run = runs.find(session, run_id, lock=True)
        for number in range(3 * BATCH):
            record(session, run, "log", f"line {number}")
        steering.cancel(session, run_id)
    last = 3 * BATCH + 2
    for stream, first in ((quick, 1), (slow, 2)):
        assert [number_of(await following(stream)) for _ in range(first, last + 1)] == list(range(first, last + 1))


def number_of(frame: bytes) -> int:
    return int(frame.partition(b"id: ")[2].partition(b"\n")[0])


async def following(stream: AsyncIterator[bytes]) -> bytes:
    """The next frame with an event in it."""
    while True:
        frame = await asyncio.wait_for(anext(stream), 10)
        if b"data: " in frame:
            return frame


async def test_a_page_of_events_starts_behind_its_cursor(coordinator: CoordinatorClient, ended: RunView):
    first = await coordinator.event_page(ended.id, limit=3)
    assert [e.id for e in first.data] == [1, 2, 3]
    rest = await coordinator.event_page(ended.id, after=int(first.next or ""), limit=100)
    assert [e.id for e in rest.data] == list(range(4, 9))
    assert rest.next is None
