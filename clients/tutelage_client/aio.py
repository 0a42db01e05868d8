"""A coordinator for a program with an event loop: runs as handles, files, teachers and keys.

What is asked and how is in `coordinator`, a method for each route; the classes here are tables of these methods. `sync`
has the same for programs and notebooks that do not await.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from tutelage_client import exporting
from tutelage_client.connection import bearer_key, coordinator_url
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import InvalidInput
from tutelage_client.http import RetryPolicy
from tutelage_client.spec import RunSpec, load_spec
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import RunStatus, RunView

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


class Part:
    """A part of what the coordinator offers."""

    def __init__(self, coordinator: CoordinatorClient) -> None:
        self._coordinator = coordinator


def handed_on(
    method: Callable[Concatenate[CoordinatorClient, Asked], Answer],
) -> Callable[Concatenate[Part, Asked], Answer]:
    """A method of the coordinator's client as one of a part."""

    @wraps(method)
    def call(part: Part, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        return method(part._coordinator, *args, **kwargs)

    return call


def of_run(
    method: Callable[Concatenate[CoordinatorClient, str, Asked], Answer],
) -> Callable[Concatenate[Run, Asked], Answer]:
    """A method that takes a run's id as one of that run's handle."""

    @wraps(method)
    def call(run: Run, *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
        return method(run._coordinator, run.id, *args, **kwargs)

    signature = inspect.signature(method)
    shown = [parameter for name, parameter in signature.parameters.items() if name != "run_id"]
    call.__dict__["__signature__"] = signature.replace(parameters=shown)  # what help() and notebooks show
    return call


class Run(Part):
    """One run, by its id. What it is asked the coordinator answers as of now."""

    def __init__(self, coordinator: CoordinatorClient, run_id: str) -> None:
        super().__init__(coordinator)
        self.id = run_id

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    view = of_run(CoordinatorClient.run)
    change = of_run(CoordinatorClient.change)
    pause = of_run(CoordinatorClient.pause)
    resume = of_run(CoordinatorClient.resume)
    cancel = of_run(CoordinatorClient.cancel)
    events = of_run(CoordinatorClient.events)
    past_events = of_run(CoordinatorClient.all_events)
    metrics = of_run(CoordinatorClient.metrics)
    series = of_run(CoordinatorClient.metric_series)
    checkpoints = of_run(CoordinatorClient.checkpoints)
    rollouts = of_run(CoordinatorClient.all_rollouts)
    rollout = of_run(CoordinatorClient.rollout)
    push = of_run(CoordinatorClient.push_rollouts)
    dead_letters = of_run(CoordinatorClient.dead_letters)
    replay = of_run(CoordinatorClient.replay_dead_letter)
    discard = of_run(CoordinatorClient.discard_dead_letter)
    history = of_run(CoordinatorClient.history)
    logs = of_run(CoordinatorClient.logs)
    model = of_run(CoordinatorClient.download_model)
    export = of_run(exporting.export)

    async def wait(self) -> RunView:
        """The run once it has ended; `status` and `error` say how."""
        async with aclosing(self.events()) as events:
            async for _ in events:
                pass
        return await self.view()

    async def fork(
        self, *, step: int | None = None, spec: dict[str, Any] | None = None, idempotency_key: str | None = None
    ) -> Run:
        """Queue a run that begins at a checkpoint of this one: its newest or that of `step`, with settings changed.

        spec: what differs, table by table, such as {"optim": {"lr": 1e-5}}
        """
        forked = await self._coordinator.fork(self.id, step=step, spec=spec, idempotency_key=idempotency_key)
        return Run(self._coordinator, forked.id)


class Runs(Part):
    """The runs of the key's project."""

    page = handed_on(CoordinatorClient.runs)

    async def submit(
        self, spec: RunSpec | Mapping[str, Any] | Path | str, *, idempotency_key: str | None = None
    ) -> Run:
        """Queue the run that a spec describes, or its tables, or a TOML file, to whose folder its paths are relative.

        Raises:
            InvalidInput: the file is no spec. ProblemResponse: the coordinator refuses it; `field` says where.
        """
        read = load_spec(Path(spec)) if isinstance(spec, Path | str) else spec
        body = read if isinstance(read, RunSpec) else dict(read)
        return Run(self._coordinator, (await self._coordinator.submit(body, idempotency_key)).id)

    async def all(self, *, status: RunStatus | None = None) -> AsyncGenerator[RunView]:
        """Every run, the newest first; of this status alone where one is given."""
        after: str | None = None
        while True:
            page = await self._coordinator.runs(after=after, status=status)
            for view in page.data:
                yield view
            if (after := page.next) is None:
                return


class Files(Part):
    """Uploaded files: prompts, data, and models as tar archives. A spec names one as file:ID."""

    upload = handed_on(CoordinatorClient.upload)
    download = handed_on(CoordinatorClient.download_file)
    delete = handed_on(CoordinatorClient.delete_file)
    all = handed_on(CoordinatorClient.files)


class Keys(Part):
    """Keys of the coordinator, for those who may make them."""

    create = handed_on(CoordinatorClient.create_key)
    revoke = handed_on(CoordinatorClient.revoke_key)
    all = handed_on(CoordinatorClient.keys)


class Teachers(Part):
    """The registered teachers."""

    def __init__(self, coordinator: CoordinatorClient, opened: AsyncExitStack) -> None:
        super().__init__(coordinator)
        self._opened = opened

    all = handed_on(CoordinatorClient.teachers)
    remove = handed_on(CoordinatorClient.remove_teacher)

    async def connect(self, name: str, *, key: str | None = None) -> TeacherClient:
        """The client of a teacher, closed with this one's.

        key: one of the teacher's own keys; the coordinator's key is for the coordinator and is never sent to it
        Raises:
            InvalidInput: no teacher is registered under this name.
        """
        addresses = {teacher.name: teacher.url for teacher in await self._coordinator.teachers()}
        if name not in addresses:
            known = ", ".join(addresses) or "none"
            raise InvalidInput(f"there is no teacher {name!r}; registered are: {known}", "name")
        return await self._opened.enter_async_context(TeacherClient(addresses[name], key))


class Tutelage(Part):
    """The coordinator at `url`; else at $TUTELAGE_COORDINATOR, else of the stack started in this folder, else at 8400.

    key: bearer key; else what is in the file that $TUTELAGE_KEY_FILE names
    retry: how long an answer is tried for; transport: stands in for the network, as in tests
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        retry: RetryPolicy | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = coordinator_url(url)
        super().__init__(CoordinatorClient(self.url, key or bearer_key(), transport, retry))
        self._opened = AsyncExitStack()
        self.runs = Runs(self._coordinator)
        self.files = Files(self._coordinator)
        self.teachers = Teachers(self._coordinator, self._opened)
        self.keys = Keys(self._coordinator)

    audit = handed_on(CoordinatorClient.audit)
    forget_rollouts = handed_on(CoordinatorClient.forget_rollouts)

    def run(self, run_id: str) -> Run:
        """A handle of a run that is there; nothing is asked yet."""
        return Run(self._coordinator, run_id)

    async def close(self) -> None:
        await self._opened.aclose()
        await self._coordinator.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
