"""The named methods: facts of the right form, compositions that are specs, presets that are their compositions."""

from __future__ import annotations

import re
import tomllib
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tutelage_client.errors import InvalidInput
from tutelage_client.methods import METHODS, Method, as_toml, method
from tutelage_client.methods.method import Need, Section
from tutelage_client.spec import RunSpec, SumObjective, parse_spec, required_signals
from tutelage_client.wire.teachers import Signal

BUILT = [each for each in METHODS if each.composition is not None]
NOT_BUILT = [each for each in METHODS if each.composition is None]
# What a spec asks of a teacher, by what the table says that the method needs.
SIGNALS = {
    "nothing": frozenset[Signal](),
    "text": frozenset[Signal](),
    "sampled": {Signal.SAMPLED},
    "candidates": {Signal.SAMPLED, Signal.CANDIDATES},
    "top_k": {Signal.SAMPLED, Signal.TOP_K},
    "entropy": {Signal.ENTROPY},
    "full": {Signal.HIDDEN},
    "hidden": {Signal.HIDDEN},
}


def by_name(value: object) -> str | None:
    return value.name if isinstance(value, Method) else None


def base(each: Method) -> dict[str, Any]:
    """Everything of a spec that a method leaves open."""
    teachers = [] if each.needs == ("nothing",) else [{"name": "toy"}]
    data = {"train": "prompts.jsonl", "eval": "held-out.jsonl"}
    return {"name": "run", "student": {"model": "student"}, "teachers": teachers, "data": data}


def preset(name: str, **own: Any) -> dict[str, Any]:
    return {"objective": {"kind": "preset", "name": name} | own}


def test_there_are_many_of_every_place() -> None:
    assert len(METHODS) >= 80
    assert {each.section for each in METHODS} == set(get_args(Section))
    assert {need for each in METHODS for need in each.needs} == set(get_args(Need))
    assert {each.status for each in METHODS} == {"built", "missing", "out of scope"}


def test_a_name_means_one_method() -> None:
    names = [each.name for each in METHODS]
    assert len(set(names)) == len(names)
    assert len({each.title for each in METHODS}) == len(names)


@pytest.mark.parametrize("each", METHODS, ids=by_name)
def test_what_is_published_has_its_source_and_its_year(each: Method) -> None:
    assert each.section == "baseline" or each.paper is not None
    assert each.arxiv is None or each.page is None
    assert (each.paper is None) == (each.year is None)
    if each.arxiv is not None and each.year is not None:
        written = 2000 + int(each.arxiv[:2])
        assert 1 <= int(each.arxiv[2:4]) <= 12
        assert each.year <= written <= each.year + 1


@pytest.mark.parametrize("each", METHODS, ids=by_name)
def test_texts_name_only_methods_and_stabilizers_that_are_there(each: Method) -> None:
    texts = " ".join(filter(None, (each.missing, each.out_of_scope, each.differs, each.failures)))
    for named in re.findall(r"`([^`]+)`", texts):
        assert named == "reference_kl" or method(named).composition


@pytest.mark.parametrize("each", BUILT, ids=by_name)
def test_a_composition_is_a_spec_that_asks_what_the_method_needs(each: Method) -> None:
    assert each.composition is not None
    assert each.composition.keys() <= {"objective", "rollout", "reward", "stabilizers"}
    spec = parse_spec(base(each) | each.composition)
    assert required_signals(spec) == frozenset().union(*(SIGNALS[need] for need in each.needs))
    writes = spec.rollout.source in ("teacher", "teacher_mixed")
    assert ("text" in each.needs) == (writes or spec.asks_teacher_rewards)


@pytest.mark.parametrize("each", BUILT, ids=by_name)
def test_a_preset_is_its_composition_and_is_stored_resolved(each: Method) -> None:
    assert each.composition is not None
    spec = parse_spec(base(each) | preset(each.name))
    assert spec == parse_spec(base(each) | each.composition)
    assert spec == RunSpec.model_validate(base(each) | preset(each.name))
    assert spec.objective.kind != "preset"
    assert parse_spec(spec.model_dump(mode="json")) == spec


@pytest.mark.parametrize("each", BUILT, ids=by_name)
def test_a_composition_survives_toml(each: Method) -> None:
    assert each.composition is not None
    assert tomllib.loads(as_toml(each.composition)) == each.composition


@pytest.mark.parametrize("each", NOT_BUILT, ids=by_name)
def test_a_method_that_is_not_built_is_refused_with_its_reason(each: Method) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(base(each) | preset(each.name))
    assert refused.value.field == "objective.name"
    assert (each.missing or each.out_of_scope or "") in refused.value.message


@given(beta=st.floats(0, 1), fraction=st.floats(0, 1), steps=st.integers(1, 1000))
def test_numbers_of_the_author_replace_those_of_the_method(beta: float, fraction: float, steps: int) -> None:
    own = {"rollout": {"on_policy_fraction": fraction, "top_p": 0.9}, "optim": {"steps": steps}}
    spec = parse_spec(base(method("gkd")) | preset("gkd", beta=beta) | own)
    objective = {"kind": "divergence", "divergence": "jsd", "beta": beta}
    rollout = {"source": "mix", "on_policy_fraction": fraction, "top_p": 0.9}
    written = {"objective": objective, "rollout": rollout, "optim": {"steps": steps}}
    assert spec == parse_spec(base(method("gkd")) | written)


def test_terms_of_the_author_stand_over_those_of_the_method_at_their_place() -> None:
    spec = parse_spec(base(method("eopd")) | preset("eopd", terms=[{}, {"where": {"teacher_entropy_above": 2.0}}]))
    assert isinstance(spec.objective, SumObjective)
    fixed = parse_spec(base(method("eopd")) | preset("eopd")).objective
    assert isinstance(fixed, SumObjective)
    assert spec.objective.terms[0] == fixed.terms[0]
    assert spec.objective.terms[1].objective == fixed.terms[1].objective
    assert spec.objective.terms[1].where.teacher_entropy_above == 2.0


def test_stabilizers_of_the_author_stand_over_and_beside_those_of_the_method() -> None:
    name, clip = "revisiting-opd", {"kind": "signal_clip", "max": 2.0}
    mask = {"kind": "special_token_mask", "keep_eos": False}
    found = parse_spec(base(method(name)) | preset(name, support={"k": 4}) | {"stabilizers": [clip, mask]})
    assert [each.model_dump() for each in found.stabilizers] == [clip, mask]
    assert found.objective == parse_spec(base(method(name)) | preset(name, support={"k": 4})).objective
    beside = parse_spec(base(method(name)) | preset(name) | {"stabilizers": [clip]})
    assert [each.kind for each in beside.stabilizers] == ["signal_clip", "special_token_mask"]


def test_what_a_method_leaves_open_is_the_authors() -> None:
    spec = parse_spec(base(method("akl")) | preset("akl") | {"rollout": {"source": "data"}})
    assert (spec.rollout.source, spec.objective.kind) == ("data", "divergence")


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (preset("gdk"), "objective.name", "there is no method 'gdk'; did you mean 'gkd'?"),
    (preset("zzz"), "objective.name", "`tutelage methods ls` lists them"),
    ({"objective": {"kind": "preset"}}, "objective.name", "needs the name of a method"),
    (preset("gkd") | {"objective": {"kind": "preset", "name": ["gkd"]}}, "objective.name", "there is no method"),
    (preset("gkd", divergence="tvd"), "objective.divergence", "'tvd' contradicts the preset 'gkd', which has 'jsd'"),
    (preset("gkd") | {"rollout": {"source": "data"}}, "rollout.source", "which has 'mix'; remove it"),
    (preset("eopd", terms=[{}]), "objective.terms", "1 terms for the 2 of the preset 'eopd'; a table each, {} for no"),
    (preset("eopd", terms=[{}, {"objective": {"divergence": "tvd"}}]), "objective.terms.1.objective.divergence", "has"),
    (preset("rethinking-opd", support={"kind": "full"}), "objective.support.kind", "which has 'student_top_k'"),
    (preset("rethinking-opd", support={"rest": "tail"}), "objective.support.rest", "which has 'renormalise'"),
    # what the spec's own check refuses
    (preset("gkd", bta=0.5), "objective.bta", "did you mean 'beta'?"),
    (preset("gkd", beta=2), "objective.beta", "give at most 1"),
    (preset("gkd", support="full"), "objective.support", "give a table with a kind"),
    (preset("gkd") | {"rollout": 3}, "rollout", "3 is no object; give one"),
    (preset("revisiting-opd", support={"k": 0}), "objective.support.k", "give at least 1"),
    (preset("revisiting-opd") | {"stabilizers": [3]}, "stabilizers.0", "give a table with a kind"),
    (preset("revisiting-opd") | {"stabilizers": {}}, "stabilizers", "list"),
    (preset("revisiting-opd") | {"stabilizers": [{"kind": "special_token_mask"}] * 2}, "stabilizers.1", "keep one"),
    (preset("sft") | {"teachers": [{"name": "toy"}]}, "teachers", "remove [[teachers]]"),
]


@pytest.mark.parametrize(("given", "field", "said"), REFUSED)
def test_a_preset_is_refused_in_one_sentence_with_its_field(given: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(base(method("gkd")) | given)
    assert refused.value.field == field
    assert said in refused.value.message
    assert refused.value.message.startswith(f"{field}: ")
    assert "\n" not in refused.value.message


def test_a_composition_without_the_preset_is_not_touched() -> None:
    spec = base(method("gkd")) | {"objective": {"kind": "divergence"}}
    assert parse_spec(spec) == RunSpec.model_validate(spec)


@pytest.mark.parametrize(
    "change",
    [
        {"missing": "x"},
        {"composition": None},
        {"defaults": None},
        {"failures": None},
        {"arxiv": "23.1"},
        {"name": "G KD"},
        {"needs": ()},
    ],
)
def test_an_entry_of_the_wrong_form_is_no_method(change: dict[str, Any]) -> None:
    good = method("gkd").model_dump(exclude={"status", "paper"})
    assert Method.model_validate(good) == method("gkd")
    with pytest.raises(ValidationError):
        Method.model_validate(good | change)
