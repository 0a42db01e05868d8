"""What an owner may change in a run at any time: name, labels and note, from which nothing that it computes follows."""

from __future__ import annotations

from sqlalchemy.orm import Session

from tutelage.coordinator.events import record
from tutelage.coordinator.revisions import check_unchanged
from tutelage.coordinator.runs import find, view
from tutelage.coordinator.tables import RunRow
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import MOST_LABELS, RunChanges, RunView


def change(session: Session, run_id: str, changes: RunChanges, if_match: str | None) -> RunView:
    """The run with what is given changed; what is as it should be already changes nothing.

    Raises:
        InvalidInput: too many labels.
        ServiceProblem: 404 `run_not_found`; 412 `run_changed`, with the ETag that the run has.
    """
    run = find(session, run_id, lock=True)
    check_unchanged(view(run), if_match)
    before = {"name": run.name, "labels": run.labels, "note": run.note}
    wanted = before | _wanted(run, changes)
    changed = {name: value for name, value in wanted.items() if value != before[name]}
    if changed:
        for name, value in changed.items():
            setattr(run, name, value)
        run.revision += 1
        record(session, run, "log", f"its owner changed {', '.join(changed)}", changed)
    return view(run)


def _wanted(run: RunRow, changes: RunChanges) -> dict[str, object]:
    labels = {key: value for key, value in (run.labels | changes.labels).items() if value is not None}
    if len(labels) > MOST_LABELS:
        detail = f"{len(labels)} are more than {MOST_LABELS}; take some away by null"
        raise InvalidInput(f"labels: {detail}", "labels")
    given: dict[str, object] = {"labels": labels}
    if changes.name is not None:
        given["name"] = changes.name
    if changes.note is not None:
        given["note"] = changes.note or None
    return given
