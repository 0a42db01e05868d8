"""What follows a run beside the coordinator: TensorBoard's files always, one tracker where it is wanted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import pytest
from event_files import events, rows
from recording_worker import RecordingWorker, lease
from tensorboardX.proto.event_pb2 import SessionLog  # pyright: ignore[reportAttributeAccessIssue]

from tutelage.trainer.session import Session
from tutelage.trainer.tensorboard import EventFile
from tutelage.trainer.trackers import TRACKERS, TrackerName, check, flat, following
from tutelage.trainer.tracking import MOST_ROWS, About, Feed, Trackers
from tutelage_client.errors import InvalidInput

SPEC = {"name": "walk", "optim": {"lr": 1e-3, "steps": 4}, "teachers": [{"name": "walker"}]}


def about(folder: Path, epoch: int = 1, begins_at: int = 0) -> About:
    return About("run-1", epoch, SPEC, folder, begins_at)


def test_an_event_file_is_what_tensorboard_reads(tmp_path: Path) -> None:
    file = EventFile(about(tmp_path))
    told: list[tuple[int, dict[str, float]]] = [
        (0, {"accuracy": 0.25}),
        (1, {"loss": -1.5, "log_ratio_p90/1024+": float("inf"), "a" * 200: 0.0}),
        (300, {}),
        (2**40, {"loss": 2.0, "ratio_max": -float("inf")}),
    ]
    for step, metrics in told[:-1]:
        file.log(step, metrics)
    file.log(2**40, {"loss": 2.0, "ratio_max": -1e300})
    file.close()
    assert rows(tmp_path) == told
    assert events(tmp_path)[0].file_version == "brain.Event:2"


def test_a_later_attempt_tells_what_of_the_earlier_one_counts_no_more(tmp_path: Path) -> None:
    for epoch, begins_at, steps in ((1, 0, (1, 2, 3)), (2, 2, (3,))):
        file = EventFile(about(tmp_path, epoch, begins_at))
        for step in steps:
            file.log(step, {"loss": float(epoch)})
        file.close()
    begun = [event for event in events(tmp_path) if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in begun] == [(3, SessionLog.START)]
    assert [(step, row["loss"]) for step, row in rows(tmp_path)] == [(1, 1.0), (2, 1.0), (3, 1.0), (3, 2.0)]


class Listening:
    """A tracker that remembers; `breaks_at`: the step that it refuses."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.closed = False
        self._breaks_at = breaks_at

    def __call__(self, _: About) -> Listening:
        return self

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if step == self._breaks_at:
            raise ConnectionError("no server\nwith a long story")
        self.rows.append((step, metrics))

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def worker(tmp_path: Path) -> RecordingWorker:
    return RecordingWorker(lease(SPEC, str(tmp_path)))


@pytest.fixture
def session(worker: RecordingWorker) -> Session:
    assert worker.granted is not None
    return Session(cast("Any", worker), worker.granted)


async def test_every_tracker_gets_every_row_and_what_is_unknown_is_left_out(session: Session, tmp_path: Path) -> None:
    trackers = [Listening(), Listening()]
    async with Trackers([Feed("x", tracker, about(tmp_path)) for tracker in trackers]) as following:
        for step in range(50):
            await following.tell(session, step, {"loss": float(step), "accuracy": None})
    for tracker in trackers:
        assert tracker.rows == [(step, {"loss": float(step)}) for step in range(50)]
        assert tracker.closed


async def test_one_that_fails_is_told_once_and_the_others_go_on(
    session: Session, worker: RecordingWorker, tmp_path: Path
) -> None:
    sound, broken = Listening(), Listening(breaks_at=0)
    feeds = [Feed("sound", sound, about(tmp_path)), Feed("broken", broken, about(tmp_path))]
    feeds[1].give(0, {})
    feeds[1].end()
    async with Trackers(feeds) as following:
        for step in (1, 2):
            await following.tell(session, step, {"loss": 1.0})
    assert worker.events == ["broken gets no more of this run: ConnectionError: no server"]
    assert [step for step, _ in sound.rows] == [1, 2]


def test_one_that_takes_nothing_holds_nobody_up(tmp_path: Path) -> None:
    released = threading.Event()

    class Stuck(Listening):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            released.wait()

    feed = Feed("stuck", Stuck(), about(tmp_path))
    for step in range(MOST_ROWS + 2):
        feed.give(step, {})
    assert feed.failed == f"{MOST_ROWS} rows wait for it"
    released.set()


async def test_tensorboard_is_always_written(session: Session, tmp_path: Path) -> None:
    async with following(session, 0, None) as trackers:
        await trackers.tell(session, 1, {"loss": 0.5})
    assert rows(tmp_path) == [(1, {"loss": 0.5})]


async def test_a_disk_that_refuses_the_file_is_told_and_nothing_else(
    session: Session, worker: RecordingWorker, tmp_path: Path
) -> None:
    (tmp_path / "tensorboard").write_text("in the way")
    feed = Feed("TensorBoard", EventFile, about(tmp_path))
    feed.end()
    await Trackers([feed]).tell(session, 1, {"loss": 0.5})
    assert len(worker.events) == 1
    assert "TensorBoard gets no more of this run: FileExistsError" in worker.events[0]


def test_the_table_has_every_name_that_the_flag_takes() -> None:
    assert set(TRACKERS) == set(get_args(TrackerName))


@pytest.mark.parametrize("name", TRACKERS)
def test_one_whose_library_is_missing_is_refused_by_its_extra(
    name: TrackerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInput, match=rf"--tracker: {name} is not installed here; .*'tutelage\[{name}\]'"):
        check(name)
    check(None)


def test_settings_are_told_by_their_paths() -> None:
    assert dict(flat(SPEC)) == {
        "name": '"walk"',
        "optim.lr": "0.001",
        "optim.steps": "4",
        "teachers": '[{"name": "walker"}]',
    }
