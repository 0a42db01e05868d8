"""What of a spec can be refused without a model: teachers, their capabilities, files and paths."""

from __future__ import annotations

import re
from pathlib import PurePath

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.tables import FileRow, TeacherRow
from tutelage.places import hold
from tutelage.serving import ServiceProblem
from tutelage_client.spec import RunSpec, parts, size_asked, unmet, unrepeatable
from tutelage_client.wire import Capabilities, Places, Signal, TeacherInfo

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


def check(session: Session, spec: RunSpec, project: str, places: Places) -> None:
    """Refuse a run that could never work, or names what is not its owner's. places: which paths it may name

    Raises:
        ServiceProblem: 422 with one sentence and the field.
    """
    for index, teacher in enumerate(spec.teachers):
        named = {"name": teacher.name} | ({"failover_to": teacher.failover_to} if teacher.failover_to else {})
        for key, name in named.items():
            _check_teacher(session, spec, project, name, f"teachers.{index}", key)
    for field, value in _paths(spec).items():
        _check_path(session, project, field, value, places)


def _check_teacher(session: Session, spec: RunSpec, project: str, name: str, entry: str, key: str) -> None:
    able = _capabilities(session, project, name, f"{entry}.{key}")
    named = f"teacher {name!r} ({entry})"
    _check_signals(spec, named, able)
    if (sentence := unrepeatable(spec, name, able)) is not None:
        raise _missing("deterministic", sentence)
    _check_sizes(spec, named, able)


def _capabilities(session: Session, project: str, name: str, field: str) -> Capabilities:
    row = session.get(TeacherRow, name)
    if row is None or row.project != project:
        names = select(TeacherRow.name).where(TeacherRow.project == project).order_by(TeacherRow.name)
        known = ", ".join(session.scalars(names.limit(20)))
        detail = f"{field}: there is no teacher {name!r}; registered are {known or 'none'}"
        raise ServiceProblem(422, "unknown_teacher", detail, field=field)
    return TeacherInfo.model_validate(row.info).capabilities


def _check_signals(spec: RunSpec, named: str, able: Capabilities) -> None:
    if found := unmet(spec, able.signals):
        offered = ", ".join(sorted(able.signals)) or "none"
        remedy = f"with which kind {' or '.join(found.able)} works" if found.able else "so take another teacher"
        lacks = f"{named} cannot return {', '.join(found.missing)}"
        raise _missing(found.field, f"{lacks}; its signals are {offered}, {remedy}")
    if spec.reward and spec.asks_teacher_rewards and spec.reward.by.kind not in able.rewards:
        offered = ", ".join(sorted(able.rewards)) or "none"
        detail = f"{named} does not give {spec.reward.by.kind}; of the rewards that need a model: {offered}"
        raise _missing("reward.by.kind", detail)
    if spec.rollout.source in ("teacher", "teacher_mixed") and not able.generates:
        raise _missing("rollout.source", f"{named} does not write text; use another source or teacher")


def _check_sizes(spec: RunSpec, named: str, able: Capabilities) -> None:
    most = able.max_top_k if able.vocabulary_size is None else able.vocabulary_size
    for field, part, _ in parts(spec.objective):
        k = getattr(getattr(part, "support", None), "k", None)
        limit = min(most, able.max_top_k) if size_asked(part, Signal.TOP_K) else most
        if k is not None and k > limit:
            raise _missing(f"{field}.support.k", f"{k} is above {limit}, the most that {named} offers")
    if spec.rollout.source != "pushed" and spec.rollout.max_new_tokens >= able.max_length:
        detail = f"{spec.rollout.max_new_tokens} leaves no room for a prompt in {able.max_length} tokens, the longest"
        raise _missing("rollout.max_new_tokens", f"{detail} that {named} takes")


def _missing(field: str, detail: str) -> ServiceProblem:
    return ServiceProblem(422, "capability_missing", f"{field}: {detail}", field=field)


def _paths(spec: RunSpec) -> dict[str, str]:
    given = {"data.train": spec.data.train, "data.eval": spec.data.eval}
    for name, model in (("student", spec.student), ("reference", spec.reference)):
        if model is not None and (model.revision is None or not HUB_ID.fullmatch(model.model)):
            given[f"{name}.model"] = model.model
    return {field: value for field, value in given.items() if value is not None}


def _check_path(session: Session, project: str, field: str, value: str, places: Places) -> None:
    if value.startswith("file:"):
        key = (project, value.removeprefix("file:"))
        if session.get(FileRow, key, with_for_update={"read": True}) is None:  # who deletes it waits, and finds the run
            detail = f"{field}: {value!r} is not uploaded; POST /v1/files returns the id of a file"
            raise ServiceProblem(422, "unknown_file", detail, field=field)
    elif not PurePath(value).is_absolute():
        other = ", or a hub id with its revision" if field.endswith(".model") else ""
        detail = f"{field}: {value!r} is a relative path; give an absolute one, file:ID of an upload{other}"
        raise ServiceProblem(422, "invalid_input", detail, field=field)
    else:
        hold(value, places, field)
