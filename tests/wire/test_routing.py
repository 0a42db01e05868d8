"""Which teacher is asked about a line: one and only one, or a sentence that says why there is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import TeacherRef, all_names, asked_now, parse_spec, teacher_for

TAGS = st.text("abcd", min_size=1, max_size=2)


@st.composite
def routes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Teachers whose tags are apart from each other; perhaps one without any."""
    tags = draw(st.lists(TAGS, unique=True, max_size=8))
    owners = [draw(st.integers(0, 3)) for _ in tags]
    teachers = [{"name": f"t{i}", "tags": [t for t, o in zip(tags, owners, strict=True) if o == i]} for i in range(4)]
    named = [teacher for teacher in teachers if teacher["tags"]]
    rest = [{"name": "rest"}] if not named or draw(st.booleans()) else []
    return draw(st.permutations(named + rest))


def spec_with(teachers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": "routed",
        "student": {"model": "student"},
        "data": {"train": "prompts.jsonl"},
        "objective": {"kind": "divergence"},
        "teachers": teachers,
    }


@given(teachers=routes(), tag=st.none() | TAGS)
def test_a_line_goes_to_the_teacher_that_names_its_tag_else_to_the_one_without_tags(
    teachers: list[dict[str, Any]], tag: str | None
) -> None:
    spec = parse_spec(spec_with(teachers))
    owners = [t["name"] for t in teachers if tag in t.get("tags", ())] or [
        t["name"] for t in teachers if "tags" not in t
    ]
    if owners:
        assert [teacher_for(spec.teachers, tag).name] == owners
    else:
        with pytest.raises(InvalidInput) as refused:
            teacher_for(spec.teachers, tag)
        assert ("no tag" if tag is None else repr(tag)) in refused.value.message
        assert all(repr(known) in refused.value.message for t in teachers for known in t["tags"])


@given(teachers=routes(), data=st.data())
def test_a_tag_that_two_teachers_take_is_refused_at_the_second(teachers: list[dict[str, Any]], data: Any) -> None:
    taken = [tag for teacher in teachers for tag in teacher.get("tags", ())]
    if not taken:
        return
    tag = data.draw(st.sampled_from(taken))
    with pytest.raises(InvalidInput) as refused:
        parse_spec(spec_with([*teachers, {"name": "other", "tags": [tag]}]))
    assert refused.value.field == f"teachers.{len(teachers)}.tags"
    assert f"{tag!r} is taken by" in refused.value.message


AMBIGUOUS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "two that take the rest": ([{"name": "a"}, {"name": "b"}], "teachers.1.tags", "'a' takes all lines"),
    "one name twice": ([{"name": "a", "tags": ["x"]}, {"name": "a", "tags": ["y"]}], "teachers.1.name", "'a' is there"),
    "a tag twice": ([{"name": "a", "tags": ["x", "x"]}], "teachers.0.tags", "more than once"),
    "an empty tag": ([{"name": "a", "tags": [""]}], "teachers.0.tags.0", "give at least 1"),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_an_ambiguous_route_is_refused_with_its_field(case: str) -> None:
    teachers, field, said = AMBIGUOUS[case]
    with pytest.raises(InvalidInput) as refused:
        parse_spec(spec_with(teachers))
    assert refused.value.field == field
    assert said in refused.value.message
    assert "\n" not in refused.value.message


def test_one_teacher_without_tags_takes_every_line() -> None:
    only = [TeacherRef(name="only")]
    assert {teacher_for(only, tag).name for tag in (None, "a", "b")} == {"only"}


@pytest.mark.parametrize(
    ("lost", "asked"),
    [((), "a"), (("b",), "a"), (("a",), "b"), (("a", "b"), "a"), (("c",), "a")],
)
def test_a_stand_in_is_asked_while_the_teacher_is_lost_and_it_is_not(lost: tuple[str, ...], asked: str) -> None:
    teacher = TeacherRef(name="a", on_loss="failover", failover_to="b")
    assert asked_now(teacher, lost) == asked
    assert asked_now(TeacherRef(name="a"), lost) == "a"


def test_who_only_stands_in_is_named_once_and_last() -> None:
    teachers = [
        TeacherRef(name="a", tags=["x"], on_loss="failover", failover_to="spare"),
        TeacherRef(name="b", tags=["y"], on_loss="failover", failover_to="a"),
        TeacherRef(name="c", on_loss="failover", failover_to="spare"),
    ]
    assert all_names(teachers) == ["a", "b", "c", "spare"]
