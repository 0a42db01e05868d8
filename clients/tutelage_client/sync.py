"""`aio` for programs and notebooks that do not await: the same names, and each call returns when it is done.

The calls themselves are those of `aio`, on an event loop in a thread of its own. So they also work where a loop runs
already, as in a notebook.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from threading import Thread
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import httpx2

from tutelage_client import aio
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy
from tutelage_client.teacher import TeacherClient

Behind = TypeVar("Behind")
Held = TypeVar("Held", covariant=True)
Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
Shown = TypeVar("Shown")


class Background:
    """An event loop in a thread, on which a caller has something done and waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="tutelage", daemon=True)
        self._thread.start()

    def result(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What `work` comes to; a caller that is interrupted, as by Ctrl-C, ends it.

        Raises:
            InvalidInput: the loop was closed.
        """
        if self._loop.is_closed():
            work.close()
            raise InvalidInput("this client is closed; make another one")
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except BaseException:  # also where it is the caller that is interrupted, at whatever point
            asyncio.run_coroutine_threadsafe(_end(work), self._loop).result()
            raise

    def each(self, items: AsyncGenerator[Answer]) -> Generator[Answer]:
        """The items as they come. The caller that stops early ends what yields them."""
        try:
            while True:
                try:
                    yield self.result(_next(items))
                except StopAsyncIteration:
                    return
        finally:
            if not self._loop.is_closed():
                self.result(_close(items))

    def close(self, last: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do one thing more, then end the loop and its thread; again changes nothing."""
        if self._loop.is_closed():
            return
        try:
            self.result(self._loop.shutdown_asyncgens())
            self.result(last())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()


async def _end(work: Coroutine[Any, Any, Any]) -> None:
    """Cancel what was begun of it, and wait until that has ended; nothing, where it has."""
    begun = [task for task in asyncio.all_tasks() if task.get_coro() is work]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
    work.close()


async def _next(items: AsyncGenerator[Answer]) -> Answer:
    return await anext(items)


async def _close(items: AsyncGenerator[Any]) -> None:
    await items.aclose()


class Face(Generic[Held]):
    """What waits for the calls of something that is awaited."""

    def __init__(self, background: Background, behind: Held) -> None:
        self._background = background
        self._behind = behind


def waiting(
    method: Callable[Concatenate[Behind, Asked], Coroutine[Any, Any, Answer]],
) -> Callable[Concatenate[Face[Behind], Asked], Answer]:
    """A method that is awaited as one that waits."""

    @wraps(method)
    def call(face: Face[Behind], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        return face._background.result(method(face._behind, *args, **kwargs))

    return call


def showing(
    method: Callable[Concatenate[Behind, Asked], Coroutine[Any, Any, Answer]],
    face_of: Callable[[Background, Answer], Shown],
) -> Callable[Concatenate[Face[Behind], Asked], Shown]:
    """The same of a method whose result is awaited in its turn: it comes with a face of its own."""

    @wraps(method)
    def call(face: Face[Behind], *args: Asked.args, **kwargs: Asked.kwargs) -> Shown:
        return face_of(face._background, face._background.result(method(face._behind, *args, **kwargs)))

    return call


def yielding(
    method: Callable[Concatenate[Behind, Asked], AsyncGenerator[Answer]],
) -> Callable[Concatenate[Face[Behind], Asked], Generator[Answer]]:
    """A method to iterate over with `async for` as one for `for`."""

    @wraps(method)
    def call(face: Face[Behind], *args: Asked.args, **kwargs: Asked.kwargs) -> Generator[Answer]:
        return face._background.each(method(face._behind, *args, **kwargs))

    return call


class Run(Face[aio.Run]):
    """One run, by its id. What it is asked the coordinator answers as of now."""

    @property
    def id(self) -> str:
        return self._behind.id

    def __repr__(self) -> str:
        return repr(self._behind)

    view = waiting(aio.Run.view)
    wait = waiting(aio.Run.wait)
    change = waiting(aio.Run.change)
    pause = waiting(aio.Run.pause)
    resume = waiting(aio.Run.resume)
    cancel = waiting(aio.Run.cancel)
    fork = showing(aio.Run.fork, lambda background, run: Run(background, run))
    events = yielding(aio.Run.events)
    past_events = waiting(aio.Run.past_events)
    metrics = waiting(aio.Run.metrics)
    series = waiting(aio.Run.series)
    checkpoints = waiting(aio.Run.checkpoints)
    rollouts = waiting(aio.Run.rollouts)
    rollout = waiting(aio.Run.rollout)
    push = waiting(aio.Run.push)
    dead_letters = waiting(aio.Run.dead_letters)
    replay = waiting(aio.Run.replay)
    discard = waiting(aio.Run.discard)
    history = waiting(aio.Run.history)
    logs = waiting(aio.Run.logs)
    model = waiting(aio.Run.model)
    export = waiting(aio.Run.export)


class Runs(Face[aio.Runs]):
    """The runs of the key's project."""

    submit = showing(aio.Runs.submit, Run)
    page = waiting(aio.Runs.page)
    all = yielding(aio.Runs.all)


class Files(Face[aio.Files]):
    """Uploaded files: prompts, data, and models as tar archives. A spec names one as file:ID."""

    upload = waiting(aio.Files.upload)
    download = waiting(aio.Files.download)
    delete = waiting(aio.Files.delete)
    all = waiting(aio.Files.all)


class Keys(Face[aio.Keys]):
    """Keys of the coordinator, for those who may make them."""

    create = waiting(aio.Keys.create)
    revoke = waiting(aio.Keys.revoke)
    all = waiting(aio.Keys.all)


class Teacher(Face[TeacherClient]):
    """A teacher: scores as arrays, its head, its text and its rewards."""

    info = waiting(TeacherClient.info)
    usage = waiting(TeacherClient.usage)
    score = waiting(TeacherClient.score)
    head = waiting(TeacherClient.head)
    generate = waiting(TeacherClient.generate)
    reward = waiting(TeacherClient.reward)


class Teachers(Face[aio.Teachers]):
    """The registered teachers."""

    connect = showing(aio.Teachers.connect, Teacher)
    remove = waiting(aio.Teachers.remove)
    all = waiting(aio.Teachers.all)


class Tutelage(Face[aio.Tutelage]):
    """As `aio.Tutelage`. Close it, or use it in a `with` block."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        behind = aio.Tutelage(url, key=key, retry=retry, transport=transport)
        background = Background()
        super().__init__(background, behind)
        self.url = behind.url
        self.runs = Runs(background, behind.runs)
        self.files = Files(background, behind.files)
        self.teachers = Teachers(background, behind.teachers)
        self.keys = Keys(background, behind.keys)

    audit = waiting(aio.Tutelage.audit)
    forget_rollouts = waiting(aio.Tutelage.forget_rollouts)

    def run(self, run_id: str) -> Run:
        """A handle of a run that is there; nothing is asked yet."""
        return Run(self._background, self._behind.run(run_id))

    def close(self) -> None:
        """Close the connections and end the thread; again changes nothing."""
        self._background.close(self._behind.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
