"""What a spec asks of a teacher by its fields, and that what is said to work in their place does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage_client.methods import METHODS
from tutelage_client.spec import parse_spec, required_signals, unmet
from tutelage_client.spec.needs import CHOICES, signals_by_field
from tutelage_client.wire import Signal

BASE: dict[str, Any] = {
    "name": "run",
    "student": {"model": "student"},
    "teachers": [{"name": "toy"}],
    "data": {"train": "prompts.jsonl"},
}
SUPPORTED = [
    {"kind": "divergence", "divergence": divergence, "support": {"kind": kind}}
    for divergence in ("reverse_kl", "jsd", "todi")
    for kind in CHOICES["support"]
    if divergence == "reverse_kl" or kind != "sampled"
]
CREDITED = [{"kind": "policy_gradient", "credit": {"kind": kind}} for kind in CHOICES["credit"]]
BUILT = [each for each in METHODS if each.composition is not None and each.needs != ("nothing",)]
signals = st.frozensets(st.sampled_from(Signal))


@given(objective=st.sampled_from(SUPPORTED + CREDITED), there=signals)
def test_a_kind_that_is_said_to_work_asks_no_more_than_there_is(
    objective: dict[str, Any], there: frozenset[Signal]
) -> None:
    spec = parse_spec(BASE | {"objective": objective})
    key = "support" if "support" in objective else "credit"
    found = unmet(spec, there)
    if found is None:
        assert required_signals(spec) <= there
        return
    assert found.field == f"objective.{key}"
    assert set(found.missing) == required_signals(spec) - there
    for kind in CHOICES[key]:
        if kind in found.able:
            assert unmet(parse_spec(BASE | {"objective": objective | {key: {"kind": kind}}}), there) is None
        elif kind != "sampled" or objective.get("divergence") == "reverse_kl":
            other = parse_spec(BASE | {"objective": objective | {key: {"kind": kind}}})
            assert not required_signals(other) <= there


@pytest.mark.parametrize("each", BUILT, ids=lambda each: each.name)
def test_every_field_that_asks_is_one_of_the_spec(each: Any) -> None:
    spec = parse_spec(BASE | {"data": {"train": "t.jsonl", "eval": "e.jsonl"}} | each.composition)
    for field in signals_by_field(spec):
        node: Any = spec.model_dump()
        for key in field.split("."):
            node = node[int(key)] if isinstance(node, list) else node[key]
        assert node is not None
