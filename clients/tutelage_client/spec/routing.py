"""Which of a run's teachers is asked about a line: by the line's tag, and by who of them is lost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from tutelage_client.errors import InvalidInput
from tutelage_client.spec.models import TeacherRef
from tutelage_client.wire.refusal import refused


def check_routes(teachers: Sequence[TeacherRef]) -> None:
    """Every tag leads to one teacher, and at most one teacher takes the rest."""
    names: set[str] = set()
    takers: dict[str, str] = {}
    rest: str | None = None
    for index, teacher in enumerate(teachers):
        if teacher.name in names:
            raise refused(f"teachers.{index}.name", f"{teacher.name!r} is there already; give it all its tags in one")
        names.add(teacher.name)
        for tag in teacher.tags:
            if tag in takers:
                raise refused(f"teachers.{index}.tags", f"{tag!r} is taken by {takers[tag]!r} already; name it once")
            takers[tag] = teacher.name
        if not teacher.tags:
            if rest is not None:
                sentence = f"{rest!r} takes all lines that no other teacher takes; give {teacher.name!r} tags"
                raise refused(f"teachers.{index}.tags", sentence)
            rest = teacher.name


def teacher_for(teachers: Sequence[TeacherRef], tag: str | None) -> TeacherRef:
    """The teacher that is asked about a line with this tag: the one that names it, else the one without tags.

    Raises:
        InvalidInput: there is no such teacher.
    """
    for teacher in teachers:
        if tag in teacher.tags:
            return teacher
    for teacher in teachers:
        if not teacher.tags:
            return teacher
    taken = ", ".join(repr(known) for teacher in teachers for known in teacher.tags)
    what = "no tag, and every teacher has tags" if tag is None else f"the tag {tag!r}, which no teacher takes"
    remedy = f"give it one of {taken}, or leave the tags of one teacher out to let it take the rest"
    raise InvalidInput(f"it has {what}; {remedy}", "teachers")


def asked_now(teacher: TeacherRef, lost: Collection[str]) -> str:
    """Who is asked about this teacher's lines: it itself, or while it is lost its stand-in, if that is not lost."""
    if teacher.name in lost and teacher.failover_to is not None and teacher.failover_to not in lost:
        return teacher.failover_to
    return teacher.name


def all_names(teachers: Iterable[TeacherRef]) -> list[str]:
    """Everyone who may be asked: the teachers in order, then those who only stand in for one."""
    every = list(teachers)
    stand_ins = [teacher.failover_to for teacher in every if teacher.failover_to is not None]
    return list(dict.fromkeys([teacher.name for teacher in every] + stand_ins))
