"""Settings of a spec over those of another, and which of two specs differ."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import differing, merged, parse_spec, touches

BASE: dict[str, Any] = {
    "name": "one",
    "teachers": [{"name": "a", "tags": ["x"]}, {"name": "b"}],
    "objective": {"kind": "divergence", "support": {"kind": "teacher_top_k", "k": 4}},
    "budget": {"teacher_tokens": 5, "wall_clock_s": None},
}

MERGED: dict[str, tuple[dict[str, Any], str, Any]] = {
    "a value": ({"name": "two"}, "name", "two"),
    "a value inside a table": (
        {"objective": {"support": {"k": 8}}},
        "objective",
        {"kind": "divergence", "support": {"kind": "teacher_top_k", "k": 8}},
    ),
    "a table of another kind": ({"objective": {"kind": "supervised"}}, "objective", {"kind": "supervised"}),
    "a table of another kind inside": (
        {"objective": {"support": {"kind": "sampled"}}},
        "objective",
        {"kind": "divergence", "support": {"kind": "sampled"}},
    ),
    "a default again": ({"budget": {"teacher_tokens": None}}, "budget", {"wall_clock_s": None}),
    "a table that was not there": ({"eval": {"every": 5}}, "eval", {"every": 5}),
    "a whole list": ({"teachers": [{"name": "c"}]}, "teachers", [{"name": "c"}]),
    "a place in a list": (
        {"teachers": {"1": {"tags": ["y"]}}},
        "teachers",
        [BASE["teachers"][0], {"name": "b", "tags": ["y"]}],
    ),
}


@pytest.mark.parametrize("case", MERGED)
def test_changes_go_over_the_base_table_by_table(case: str) -> None:
    changes, key, expected = MERGED[case]
    found = merged(BASE, changes)
    assert found[key] == expected
    assert {k: v for k, v in found.items() if k != key} == {k: v for k, v in BASE.items() if k != key}


def test_no_change_is_the_same_spec() -> None:
    assert merged(BASE, {}) == BASE
    assert differing(BASE, merged(BASE, {})) == []


@pytest.mark.parametrize("place", ["2", "-1", "00", "x"])
def test_a_place_that_a_list_does_not_have_is_refused(place: str) -> None:
    with pytest.raises(InvalidInput, match="is no place in this list; it has 0, 1") as refused:
        merged(BASE, {"teachers": {place: {}}})
    assert refused.value.field == f"teachers.{place}"


def test_what_differs_is_named_by_its_path() -> None:
    spec = {
        "name": "one",
        "student": {"model": "/m"},
        "data": {"train": "/t"},
        "objective": {"kind": "constant_penalty"},
    }
    before = parse_spec(spec).model_dump(mode="json")
    after = parse_spec(merged(before, {"optim": {"lr": 1e-5, "betas": [0.9, 0.95]}, "student": {"lora": {}}}))
    assert differing(before, after.model_dump(mode="json")) == ["student.lora", "optim.lr", "optim.betas.1"]


def test_a_change_touches_what_is_in_it_and_around_it() -> None:
    assert touches(["student.lora.rank"], "student")
    assert touches(["rollout"], "rollout.adaptive")
    assert touches(["rollout.adaptive"], "rollout.adaptive")
    assert not touches(["optim.lr"], "optim.lr_end", "rollout")
