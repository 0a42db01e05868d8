"""What an owner asks of a run that goes on: to pause, to resume, to end. `states.ALLOWED` says when."""

from __future__ import annotations

from sqlalchemy.orm import Session

from tutelage.coordinator.events import move
from tutelage.coordinator.revisions import check_unchanged
from tutelage.coordinator.runs import find, view
from tutelage.coordinator.states import ALLOWED, LEASED, TRANSITIONS, Verb, allowed
from tutelage.coordinator.tables import RunRow
from tutelage.serving import ServiceProblem
from tutelage_client.wire import RunStatus, RunView


def cancel(session: Session, run_id: str, if_match: str | None = None) -> RunView:
    """Ask that the run ends without its result."""
    run = _asked(session, run_id, Verb.CANCEL, "cancel", if_match)
    if run.status not in (RunStatus.CANCELLING, RunStatus.CANCELLED):
        move(session, run, RunStatus.CANCELLING if run.status in LEASED else RunStatus.CANCELLED, reason="asked")
    return view(run)


def pause(session: Session, run_id: str, if_match: str | None = None) -> RunView:
    """Ask that the run stops after a checkpoint and waits."""
    run = _asked(session, run_id, Verb.PAUSE, "pause", if_match)
    to = RunStatus.PAUSING if run.status in LEASED else RunStatus.PAUSED
    if to in TRANSITIONS[run.status]:
        move(session, run, to, reason="asked")
    return view(run)


def resume(session: Session, run_id: str, if_match: str | None = None) -> RunView:
    """Take a pause back; a run that has paused already is queued again."""
    run = _asked(session, run_id, Verb.RESUME, "run", if_match)
    if run.status is RunStatus.PAUSED:
        move(session, run, RunStatus.QUEUED, reason="asked")
    return view(run)


def _asked(session: Session, run_id: str, verb: Verb, desired: str, if_match: str | None) -> RunRow:
    """The run, with what its owner now wants.

    Raises:
        ServiceProblem: 404 `run_not_found`; 409 `run_is_final` or `run_is_cancelling`; 412 `run_changed`.
    """
    run = find(session, run_id, lock=True)
    check_unchanged(view(run), if_match)
    if run.status not in ALLOWED[verb]:
        raise _refusal(run, verb)
    if run.desired != desired:
        run.desired = desired
        run.revision += 1
    return run


def _refusal(run: RunRow, verb: Verb) -> ServiceProblem:
    possible = allowed(run.status)
    detail = f"{run.id} is {run.status}, which does not allow {verb}; it allows {', '.join(possible)}"
    if run.status.final:
        return ServiceProblem(409, "run_is_final", f"{detail}, and a new run can be submitted", allowed=possible)
    return ServiceProblem(409, "run_is_cancelling", detail, allowed=possible)
