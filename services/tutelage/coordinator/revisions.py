"""The ETag of a run: of what its owners change, so that two of them do not undo each other's work unseen."""

from __future__ import annotations

from tutelage.serving import ServiceProblem
from tutelage_client.wire import RunView


def etag(run: RunView) -> str:
    """Of name, labels, note and what is desired; what the trainer reports leaves it as it is."""
    return f'"{run.revision}"'


def check_unchanged(run: RunView, if_match: str | None) -> None:
    """Raises ServiceProblem: 412 `run_changed`, with the ETag that the run has."""
    if if_match is None or if_match.strip() == "*":
        return
    own = etag(run)
    if own not in [each.strip() for each in if_match.split(",")]:
        detail = f"If-Match: {if_match} is not {own}, the ETag of {run.id} now; read it and decide again"
        raise ServiceProblem(412, "run_changed", detail, field="If-Match", headers={"ETag": own})
