"""What a user's process asks of the coordinator: runs, their history and results; files, teachers and keys."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from tarfile import TarError
from typing import Any
from urllib.parse import quote

from pydantic import RootModel

from tutelage_client.client import given
from tutelage_client.disk import unpack
from tutelage_client.errors import InvalidInput
from tutelage_client.history import History, read_notes, submitted_per_step
from tutelage_client.http import Hints
from tutelage_client.spec import RunSpec
from tutelage_client.store import StoreClient
from tutelage_client.wire import (
    DeadLetterView,
    EventView,
    ForgetRequest,
    Forgotten,
    ForkRequest,
    ListedCheckpoint,
    MetricSeries,
    Page,
    PushedRollouts,
    PushResult,
    Rollout,
    RolloutSample,
    RolloutView,
    RunChanges,
    RunStatus,
    RunView,
)
from tutelage_client.wire.message import read_reply


class CoordinatorClient(StoreClient):
    """The coordinator at `url` as a user sees it, a method for each route. `aio` has the same as handles of runs."""

    hints = Hints(
        "start one with `tutelage up`, or say where it is: Tutelage(URL), or TUTELAGE_COORDINATOR in the environment",
        "give a key: Tutelage(key=...), or in TUTELAGE_KEY_FILE the path of a file that holds it",
    )

    async def submit(self, spec: RunSpec | dict[str, Any], idempotency_key: str | None = None) -> RunView:
        """Queue a run. Repeating the call with the same key and spec returns the same run."""
        body = spec.model_dump(mode="json") if isinstance(spec, RunSpec) else spec
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        return await self._http.request_json("POST", "/v1/runs", RunView, body, headers=headers, repeatable=True)

    async def runs(
        self, *, after: str | None = None, limit: int = 50, status: RunStatus | None = None
    ) -> Page[RunView]:
        """One page of runs, the newest first."""
        params = given(after=after, limit=limit, status=status)
        return await self._http.request_json("GET", "/v1/runs", Page[RunView], params=params)

    async def run(self, run_id: str) -> RunView:
        return await self._http.request_json("GET", f"/v1/runs/{run_id}", RunView)

    async def change(self, run_id: str, changes: RunChanges, *, revision: int | None = None) -> RunView:
        """Change name, labels or note; with `revision` only while it is the run's, otherwise 412 `run_changed`.

        Repeated by itself only without `revision`: where the first answer was lost, the second would be that refusal.
        """
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        body = changes.model_dump(mode="json", exclude_unset=True)
        path = f"/v1/runs/{run_id}"
        repeatable = revision is None
        return await self._http.request_json("PATCH", path, RunView, body, headers=headers, repeatable=repeatable)

    async def cancel(self, run_id: str) -> RunView:
        return await self._ask(run_id, "cancel")

    async def pause(self, run_id: str) -> RunView:
        return await self._ask(run_id, "pause")

    async def resume(self, run_id: str) -> RunView:
        return await self._ask(run_id, "resume")

    async def fork(
        self,
        run_id: str,
        *,
        step: int | None = None,
        spec: dict[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> RunView:
        """Queue a run that begins at a checkpoint of this one, its newest or that of `step`, with settings changed.

        spec: what differs, table by table, such as {"optim": {"lr": 1e-5}}
        """
        body = ForkRequest(step=step, spec=spec or {})
        headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        path = f"/v1/runs/{run_id}/fork"
        return await self._http.request_json("POST", path, RunView, body, headers=headers, repeatable=True)

    async def _ask(self, run_id: str, verb: str) -> RunView:
        return await self._http.request_json("POST", f"/v1/runs/{run_id}/{verb}", RunView, repeatable=True)

    async def events(self, run_id: str, after: int = 0) -> AsyncGenerator[EventView]:
        """Events as they happen, each once and in order, across broken connections; ends with the run."""
        ended = False
        while not ended:
            ended = (await self.run(run_id)).status.final  # a final run has all its events already
            last_id = str(after) if after else None
            async for event in self._http.events(f"/v1/runs/{run_id}/events", last_id=last_id):
                if event.data:  # a frame that only sets the time to reconnect has none
                    view = read_reply(EventView, event.data)
                    after = view.id
                    yield view

    async def event_page(self, run_id: str, after: int = 0, limit: int = 200) -> Page[EventView]:
        params = given(after=after, limit=limit)
        return await self._http.request_json("GET", f"/v1/runs/{run_id}/events", Page[EventView], params=params)

    async def metrics(self, run_id: str) -> list[dict[str, Any]]:
        """Every step's row: `step`, `epoch`, `student_tokens`, `teacher_tokens` and whatever the trainer measured."""
        rows = await self._all(f"/v1/runs/{run_id}/metrics", RootModel[dict[str, Any]])
        return [row.root for row in rows]

    async def metric_series(self, run_id: str, resolution: int, metrics: Sequence[str] = ()) -> MetricSeries:
        """The whole run in at most `resolution` buckets of steps, of these metrics or of all: least, mean, largest."""
        params = {"resolution": resolution, "metric": list(metrics)}
        return await self._http.request_json("GET", f"/v1/runs/{run_id}/metrics", MetricSeries, params=params)

    async def checkpoints(self, run_id: str) -> list[ListedCheckpoint]:
        """Committed checkpoints, the oldest first."""
        return await self._all(f"/v1/runs/{run_id}/checkpoints", ListedCheckpoint)

    async def history(self, run_id: str) -> History:
        """What the run recorded of itself so far, for `tutelage_client.history.broken`."""
        run = await self.run(run_id)
        events = await self.all_events(run_id)
        rows, checkpoints = await self.metrics(run_id), await self.checkpoints(run_id)
        lines = b"".join([chunk async for chunk in self._http.download(f"/v1/runs/{run_id}/learned")])
        return History(run, events, rows, checkpoints, read_notes(lines), submitted_per_step(run.spec))

    async def logs(self, run_id: str, *, epoch: int | None = None, lines: int = 1000) -> str:
        """The last lines that a trainer wrote which the coordinator launched: for `epoch`, or the newest attempt."""
        params = given(epoch=epoch, lines=lines)
        return (await self._http.send("GET", f"/v1/runs/{run_id}/logs", params=params)).text

    async def dead_letters(self, run_id: str) -> list[DeadLetterView]:
        """Questions about the run's rollouts that a teacher gave up."""
        return await self._all(f"/v1/runs/{run_id}/dead-letters", DeadLetterView)

    async def replay_dead_letter(self, run_id: str, job_id: str) -> DeadLetterView:
        """Put it back to work. Not repeated by itself: the second time there would be none."""
        path = f"/v1/runs/{run_id}/dead-letters/{quote(job_id, safe='')}/replay"
        return await self._http.request_json("POST", path, DeadLetterView)

    async def discard_dead_letter(self, run_id: str, job_id: str) -> DeadLetterView:
        """Forget it. Not repeated by itself: the second time there would be none."""
        path = f"/v1/runs/{run_id}/dead-letters/{quote(job_id, safe='')}"
        return await self._http.request_json("DELETE", path, DeadLetterView)

    async def rollouts(self, run_id: str, after: str | None = None, limit: int = 50) -> Page[RolloutSample]:
        """One page of sample rollouts, by step."""
        params = given(after=after, limit=limit)
        return await self._http.request_json("GET", f"/v1/runs/{run_id}/rollouts", Page[RolloutSample], params=params)

    async def all_rollouts(self, run_id: str) -> list[RolloutSample]:
        """Every sample rollout, by step."""
        return await self._all(f"/v1/runs/{run_id}/rollouts", RolloutSample)

    async def all_events(self, run_id: str) -> list[EventView]:
        """What happened so far."""
        return await self._all(f"/v1/runs/{run_id}/events", EventView)

    async def rollout(self, run_id: str, rollout_id: str) -> RolloutView:
        """A sample rollout with what student and teacher held of each of its tokens."""
        path = f"/v1/runs/{run_id}/rollouts/{quote(rollout_id, safe='')}"
        return await self._http.request_json("GET", path, RolloutView)

    async def push_rollouts(self, run_id: str, rollouts: Sequence[Rollout]) -> PushResult:
        """Hand rollouts written elsewhere to a run whose rollout.source is "pushed"; repeated ids are ignored."""
        body = PushedRollouts(rollouts=list(rollouts))
        return await self._http.request_json("POST", f"/v1/runs/{run_id}/rollouts", PushResult, body, repeatable=True)

    async def forget_rollouts(self, days: float, audit_days: float | None = None, *, files: bool = False) -> Forgotten:
        """Delete the shown and pushed rollouts of runs that ended more than `days` ago, a part of them at each call.

        audit_days: also entries of the audit that are older, in every project
        files: also checkpoints and unpacked inputs of these runs; their models stay
        """
        body = ForgetRequest(days=days, audit_days=audit_days, files=files)
        return await self._http.request_json("POST", "/v1/gc", Forgotten, body, repeatable=True)

    async def download_model(self, run_id: str, path: Path | str) -> Path:
        """Unpack the final model of a run into the directory `path`; a broken download goes on where it broke.

        Raises:
            InvalidInput: what came is no archive of plain files.
        """
        folder = Path(path)
        part = folder.with_name(folder.name + ".tar.part")
        try:
            await self._save(f"/v1/runs/{run_id}/model", part)
            await asyncio.to_thread(unpack, part, folder)
        except TarError as error:
            raise InvalidInput(f"the archive of the model cannot be unpacked: {error}") from error
        finally:
            part.unlink(missing_ok=True)
        return folder
