"""How an attempt at a run ends: exceptions inside the process, exit codes outside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from tutelage_client.errors import ProblemResponse, ServiceUnreachable, TutelageError
from tutelage_client.wire import ExitCode as ExitCode
from tutelage_client.wire import RunError


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
    """A refusal over HTTP, or a silence beyond the deadline, is the teacher's failure, not a crash of the trainer."""
    try:
        yield
    except ServiceUnreachable as error:
        raise TeacherOutage(f"the teacher was waited for in vain: {error}") from error
    except ProblemResponse as error:
        remedy = "; give the trainer --teacher-key-file" if error.status == HTTPStatus.UNAUTHORIZED else ""
        raise TeacherFailed(
            "teacher_refused", f"the teacher refused with {error.code}: {error.detail}{remedy}"
        ) from error
