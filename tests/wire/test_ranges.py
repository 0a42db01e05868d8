"""Every number of a spec has its range: what lies outside is refused by the field that it is in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from specs import changed, models, nested

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, parse_spec

K1 = {"objective": {"kind": "policy_gradient"}}
# What a bound of a JSON schema leaves out, next to it.
BEYOND = {
    "minimum": lambda bound: bound - 1,
    "exclusiveMinimum": lambda bound: bound,
    "maximum": lambda bound: bound + 1,
    "exclusiveMaximum": lambda bound: bound,
}


def outside() -> Iterator[tuple[str, dict[str, Any], str, float]]:
    """Tables with one number out of its range: the table's place, what else it must hold, the key, the number."""
    for place, model in models(RunSpec):
        for key, schema in model.model_json_schema()["properties"].items():
            for kind in schema.get("anyOf", [schema]):
                if kind.get("type") in ("number", "integer"):
                    numbers = [beyond(kind[bound]) for bound, beyond in BEYOND.items() if bound in kind]
                    for number in (*numbers, math.nan, math.inf, -math.inf):
                        yield place, required(model), key, number


def required(model: type[BaseModel]) -> dict[str, Any]:
    known = {"rubric": "It is right.", "pattern": "x", **K1}
    fields = model.model_fields.items()
    kind = {"kind": model.model_fields["kind"].default} if "kind" in model.model_fields else {}
    return kind | {name: known[name] for name, info in fields if info.is_required() and name in known}


def spec_with(place: str, table: dict[str, Any], key: str, number: float) -> dict[str, Any]:
    if place == "objective.terms.0":
        return changed("objective", {"kind": "sum", "terms": [table | {key: number}]})
    if place == "objective.terms.0.where":
        return changed("objective", {"kind": "sum", "terms": [K1 | {"where": {key: number}}]})
    return nested(place, table | {key: number}) if table else changed(f"{place}.{key}", number)


CASES = list(outside())


@pytest.mark.parametrize(("place", "table", "key", "number"), CASES, ids=lambda each: str(each)[:40])
def test_a_number_outside_its_range_is_refused_by_its_field(
    place: str, table: dict[str, Any], key: str, number: float
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(spec_with(place, table, key, number))
    assert refused.value.field == f"{place}.{key}"
    assert "\n" not in refused.value.message


def test_the_numbers_of_every_objective_credit_target_support_and_stabilizer_are_among_them() -> None:
    places = {place for place, *_ in CASES}
    assert {"objective", "objective.credit", "objective.target", "objective.support", "stabilizers.0"} <= places
    assert {"objective.terms.0", "objective.terms.0.where", "reward", "rollout", "optim"} <= places
    assert len({(place, str(table), key) for place, table, key, _ in CASES}) > 100
