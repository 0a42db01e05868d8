"""A run's dead letters, which are in the queue: looked at, put back to work, or forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from starlette.concurrency import run_in_threadpool

from tutelage.coordinator.audit import Deed
from tutelage.coordinator.db import Database
from tutelage.coordinator.events import record
from tutelage.coordinator.runs import find
from tutelage.coordinator.tables import RunRow
from tutelage.coordinator.teachers import queues_of
from tutelage.queue import DeadLetter, Queue
from tutelage.serving import ServiceProblem
from tutelage_client.errors import ServiceUnreachable
from tutelage_client.wire import DeadLetterView, FailedDelivery


class Letters:
    """The dead letters of runs. queue: None where the coordinator was not told of one.

    Every method raises ServiceProblem: 404 `run_not_found`, 409 `no_queue`, 503 `queue_unavailable`; those about one
    letter also 404 `dead_letter_not_found`.
    """

    def __init__(self, database: Database, queue: Queue | None) -> None:
        self._database = database
        self._queue = queue

    async def of(self, run_id: str) -> list[DeadLetterView]:
        """By teacher in the order of the spec, those of samplers last; the first to die first."""
        teachers = await run_in_threadpool(self._teachers, run_id)
        with answering(self._queue) as queue:
            letters = [(name, letter) for name in teachers for letter in await queue.dead_letters(name)]
        return [_view(name, letter) for name, letter in letters if letter.run_id == run_id]

    async def replay(self, run_id: str, job_id: str, deed: Deed) -> DeadLetterView:
        """Put it back to work. A step that is still to be done learns from the answer; one that is done does not.

        Raises:
            ServiceProblem: 409 `run_is_final`.
        """
        await run_in_threadpool(self._refuse_final, run_id)
        letter = await self._found(run_id, job_id)
        with answering(self._queue) as queue:
            is_done = await queue.replay(letter.teacher, job_id)
        return await self._recorded(run_id, letter, is_done, deed, "put back to work")

    async def discard(self, run_id: str, job_id: str, deed: Deed) -> DeadLetterView:
        """Forget it; a step that asks the same question again asks it anew."""
        letter = await self._found(run_id, job_id)
        with answering(self._queue) as queue:
            is_done = await queue.discard(letter.teacher, job_id)
        return await self._recorded(run_id, letter, is_done, deed, "discarded")

    async def _found(self, run_id: str, job_id: str) -> DeadLetterView:
        for letter in await self.of(run_id):
            if letter.job_id == job_id:
                return letter
        raise _missing(run_id, job_id)

    async def _recorded(
        self, run_id: str, letter: DeadLetterView, is_done: bool, deed: Deed, what: str
    ) -> DeadLetterView:
        """The letter, once its end is in the run's history. Of two who act at once the second finds it gone."""
        if not is_done:
            raise _missing(run_id, letter.job_id)
        await run_in_threadpool(self._record, run_id, letter, deed, what)
        return letter

    def _record(self, run_id: str, letter: DeadLetterView, deed: Deed, what: str) -> None:
        with self._database.write() as session:
            run = find(session, run_id, lock=True)
            message = f"dead letter {letter.job_id} of teacher {letter.teacher!r} was {what}"
            record(session, run, "teacher", message, letter.model_dump(mode="json"))
            deed.tell(session, f"{run_id}/{letter.job_id}")

    def _teachers(self, run_id: str) -> list[str]:
        with self._database.read() as session:
            return queues_of(find(session, run_id))

    def _refuse_final(self, run_id: str) -> None:
        with self._database.read() as session:
            run: RunRow = find(session, run_id)
            if run.status.final:
                detail = (
                    f"{run_id} has {run.status} already, so no step of it learns from an answer; discard the letter"
                )
                raise ServiceProblem(409, "run_is_final", detail)


@contextmanager
def answering(queue: Queue | None) -> Iterator[Queue]:
    """Raises ServiceProblem: 409 `no_queue`, 503 `queue_unavailable`."""
    if queue is None:
        detail = "the coordinator was started without --redis-url, so it knows no queue; start it with one"
        raise ServiceProblem(409, "no_queue", detail)
    try:
        yield queue
    except ServiceUnreachable as error:
        raise ServiceProblem(503, "queue_unavailable", f"{error}; try again in a moment", retry_after_s=1) from error


def _missing(run_id: str, job_id: str) -> ServiceProblem:
    detail = f"{run_id} has no dead letter {job_id!r}; GET /v1/runs/{run_id}/dead-letters lists them"
    return ServiceProblem(404, "dead_letter_not_found", detail)


def _view(teacher: str, letter: DeadLetter) -> DeadLetterView:
    history = [
        FailedDelivery(worker=each.worker, reason=each.reason, at=datetime.fromtimestamp(each.at_s, UTC))
        for each in letter.history
    ]
    return DeadLetterView(
        job_id=letter.job_id, teacher=teacher, attempts=letter.attempts, reason=letter.reason, history=history
    )
