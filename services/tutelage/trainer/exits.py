"""How an attempt at a run ends: exceptions inside the process, exit codes outside it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from tutelage.addresses import NotAllowed
from tutelage_client.errors import ProblemResponse, ServiceUnreachable, TutelageError
from tutelage_client.wire import ExitCode as ExitCode
from tutelage_client.wire import RunError
from tutelage_client.wire.codes import BOTH, COMMON, TEACHER

log = logging.getLogger(__name__)
SAID = TEACHER.keys() | BOTH.keys() | COMMON.keys()  # what a teacher may refuse with


class StopRun(TutelageError):
    """The coordinator wants the run to stop: `wanted` is "cancel" or "pause"."""

    def __init__(self, wanted: str) -> None:
        super().__init__(f"the run was asked to {wanted}")
        self.wanted = wanted


class Fenced(TutelageError):
    """A newer attempt owns the run, or the lease could not be renewed in time: not one more write."""


class TeacherFailed(TutelageError):
    """The teacher cannot be used: `code` is stable, the message is for the run's owner."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def exhausted(attempt: int, reason: str) -> RunError:
    """The end of an attempt that needed more memory than there is; another one may find more."""
    remedy = "lower optim.micro_batch_tokens or rollout.prompts_per_step, or give the trainer more memory"
    message = f"out of memory: {reason}; {remedy}"
    return RunError(code="out_of_memory", message=message, category="infra", retryable=True, attempt=attempt)


class TeacherOutage(TeacherFailed):
    """A teacher was silent for longer than the spec allows; the run can go on from where it stands."""

    def __init__(self, message: str) -> None:
        super().__init__("teacher_outage", message)


@contextmanager
def asking_teacher() -> Iterator[None]:
    """A refusal over HTTP, or a silence beyond the deadline, is the teacher's failure, not a crash of the trainer.

    The run is told what a teacher says of itself and nothing of what else is at its address: that is for the log.
    """
    try:
        yield
    except NotAllowed as error:
        remedy = "give it the address there, or the teacher another --public-url"
        raise TeacherFailed("teacher_not_allowed", f"nothing was sent to the teacher: {error}; {remedy}") from error
    except ServiceUnreachable as error:
        log.warning("no answer of a teacher", extra={"reason": str(error)})
        raise TeacherOutage(f"the teacher was waited for in vain: no answer from {error.url}") from error
    except ProblemResponse as error:
        if error.code not in SAID:
            log.warning("not the answer of a teacher", extra={"status": error.status, "reason": error.detail})
            sentence = "what answers at the teacher's address is no teacher; see --public-url of that teacher"
            raise TeacherFailed("teacher_refused", f"{sentence}, and the trainer's log") from error
        remedy = "; give the trainer --teacher-key-file" if error.status == HTTPStatus.UNAUTHORIZED else ""
        raise TeacherFailed(
            "teacher_refused", f"the teacher refused with {error.code}: {error.detail}{remedy}"
        ) from error
