"""A run that begins at a checkpoint of another one: what it changes, its row, and files that are its own.

The checkpoint becomes the fork's own first one, of epoch 0, so that lease, resuming and retention know nothing new. Its
files are linked, not copied: the other run may delete them by its own names whenever it likes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator import runs
from tutelage.coordinator.accounts import within
from tutelage.coordinator.db import now
from tutelage.coordinator.events import record
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.submission import check
from tutelage.coordinator.tables import CheckpointRow, RunRow
from tutelage.durable import sync
from tutelage.serving import ServiceProblem
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, differing, merged, parse_spec, touches
from tutelage_client.wire import ForkPoint, ForkRequest, RunView

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
UNLINKED = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)  # a disk without hard links, or another's files


def fork(
    session: Session,
    settings: Settings,
    run_id: str,
    request: ForkRequest,
    idempotency_key: str | None,
    project: str,
    key_id: str | None,
) -> tuple[RunView, bool]:
    """The queued fork and whether it is new: the same key and request give the same run.

    Raises:
        InvalidInput, ServiceProblem: what `submit` refuses; 404 `run_not_found`, `checkpoint_not_found` or
            `checkpoint_missing`; 422 `setting_is_fixed`; 402 `budget_spent`.
    """
    body = {"forked_from": run_id} | request.model_dump(mode="json")
    known = runs.by_key(session, idempotency_key, body, project)
    if known is not None:
        return runs.view(known), False
    parent = runs.find(session, run_id, lock=True)  # no newer checkpoint replaces the one that is chosen
    chosen = _chosen(session, parent, request.step)
    spec, point = _respecified(parent, chosen, request)
    check(session, spec, project, settings.places)
    begun = {"step": point.step, "forked_from": point.model_dump(mode="json"), "submitted_by": key_id}
    run = runs.add(session, within(session, key_id, spec), body, idempotency_key, project, **begun)
    if run is None:
        return fork(session, settings, run_id, request, idempotency_key, project, key_id)
    _hand_over(session, settings, chosen, run)
    said = {"step": point.step, "changed": point.changed}
    record(session, parent, "log", f"{run.id} begins at step {point.step} of this run", {"run_id": run.id} | said)
    record(session, run, "log", f"begins at step {point.step} of {parent.id}", {"run_id": parent.id} | said)
    return runs.view(run), True


def _chosen(session: Session, parent: RunRow, step: int | None) -> CheckpointRow:
    committed = select(CheckpointRow).where(CheckpointRow.run_id == parent.id).order_by(CheckpointRow.step.desc())
    if step is not None:
        committed = committed.where(CheckpointRow.step == step)
    found = session.scalar(committed.limit(1))
    if found is None:
        lacks = "no committed checkpoint" if step is None else f"no committed checkpoint of step {step}"
        detail = f"{parent.id} has {lacks}; GET /v1/runs/{parent.id}/checkpoints lists those it has"
        raise ServiceProblem(404, "checkpoint_not_found", detail, field=None if step is None else "step")
    return found


def _respecified(parent: RunRow, chosen: CheckpointRow, request: ForkRequest) -> tuple[RunSpec, ForkPoint]:
    """The fork's spec, and where it begins."""
    before = parse_spec(parent.spec)  # resolved again: an older release may have known fewer settings
    spec = parse_spec(merged(before.model_dump(mode="json"), request.spec))
    changed = differing(before.model_dump(mode="json"), spec.model_dump(mode="json"))
    for field in changed:
        if touches([field], "student"):
            detail = (
                f"{field}: a fork keeps the student of {parent.id}, as the checkpoint has the weights and the moments "
                "of that one alone; leave it out, or submit a new run"
            )
            raise ServiceProblem(422, "setting_is_fixed", detail, field=field)
    if spec.optim.steps <= chosen.step:
        detail = f"{spec.optim.steps} leaves nothing to do behind the checkpoint of step {chosen.step}"
        raise InvalidInput(f"optim.steps: {detail}; give the steps of the whole run, above that", "optim.steps")
    return spec, ForkPoint(run_id=parent.id, step=chosen.step, changed=changed)


def _hand_over(session: Session, settings: Settings, chosen: CheckpointRow, run: RunRow) -> None:
    """Make the checkpoint the fork's own."""
    own = settings.artefacts(run.id) / "checkpoints" / f"step-{chosen.step:08d}-e0"
    with _missing_where_gone(chosen), _removed_on_error(settings.artefacts(run.id)):
        _link(_inside(settings, chosen), chosen.manifest_sha256, own)
    same = {name: getattr(chosen, name) for name in ("weights_sha256", "manifest_sha256", "bytes")}
    session.add(CheckpointRow(run_id=run.id, step=chosen.step, epoch=0, path=str(own), **same, created_at=now()))
    session.flush()


def _inside(settings: Settings, chosen: CheckpointRow) -> Path:
    """Its directory, which must be one of the other run's artefacts: a trainer named it."""
    root = settings.artefacts(chosen.run_id).resolve()
    if not Path(chosen.path).resolve().is_relative_to(root):
        raise FileNotFoundError(errno.ENOENT, "outside the artefacts of the run", chosen.path)
    return Path(chosen.path)


def _link(source: Path, manifest_sha256: str | None, target: Path) -> None:
    """Every file of a whole checkpoint under new names, on the disk; what is in them the trainer verifies.

    Raises:
        FileNotFoundError: a file is not there, or not as long as the manifest has it.
    """
    text = (source / MANIFEST).read_bytes()
    if manifest_sha256 not in (None, hashlib.sha256(text).hexdigest()):
        raise FileNotFoundError(errno.ENOENT, "another manifest than the committed one", str(source / MANIFEST))
    sizes = {name: told["bytes"] for name, told in json.loads(text)["files"].items()} | {MANIFEST: len(text)}
    for name, size in sizes.items():
        if (source / name).stat().st_size != size:
            raise FileNotFoundError(errno.ENOENT, f"not the {size} bytes of the manifest", str(source / name))
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        _link_file(source / name, target / name)
    for folder in {target, *(path for path in target.rglob("*") if path.is_dir()), *list(target.parents)[:3]}:
        sync(folder)


def _link_file(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in UNLINKED:
            raise
        shutil.copyfile(source, target)
        sync(target)


@contextmanager
def _missing_where_gone(chosen: CheckpointRow) -> Iterator[None]:
    """Raises ServiceProblem 404 `checkpoint_missing` for a file that is not there, or a manifest that is none."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError) as error:
        log.warning("a committed checkpoint is not whole", extra={"run_id": chosen.run_id, "reason": str(error)})
        detail = (
            f"the files of step {chosen.step} of {chosen.run_id} are not whole on the coordinator's disk any more; "
            f"take a newer step, the newest ones are kept: GET /v1/runs/{chosen.run_id}/checkpoints lists them"
        )
        raise ServiceProblem(404, "checkpoint_missing", detail, field="step") from error


@contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception:
        shutil.rmtree(folder, ignore_errors=True)
        raise
