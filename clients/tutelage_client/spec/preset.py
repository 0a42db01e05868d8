"""`objective = { kind = "preset", name = .. }` becomes the method's composition, before the spec is checked.

Numbers and keys that the method leaves open are the author's. A word that the method fixes, such as a divergence or a
source, makes it this method: another word there is refused. A stored spec is resolved and names no preset.
"""

from __future__ import annotations

from typing import Any

from tutelage_client.errors import InvalidInput
from tutelage_client.methods import Method, method
from tutelage_client.wire.refusal import refused

PRESET = "preset"
PROSE = ("rubric",)  # text for a judge, which its author words


def resolved(spec: Any) -> Any:
    """The same spec, as read from TOML or JSON, without its preset. What has none is returned as it is.

    Raises:
        ValidationError: no method has this name, it is not built, or a key contradicts it.
    """
    objective = spec.get("objective") if isinstance(spec, dict) else None
    if not isinstance(objective, dict) or objective.get("kind") != PRESET:
        return spec
    named = _named(objective)
    own = spec | {"objective": {key: value for key, value in objective.items() if key not in ("kind", "name")}}
    sections = {
        field: _merged(fixed, own[field], field, named.name) if field in own else fixed
        for field, fixed in (named.composition or {}).items()
    }
    return own | sections


def _named(objective: dict[str, Any]) -> Method:
    field = "objective.name"
    if "name" not in objective:
        raise refused(field, "a preset needs the name of a method; `tutelage methods ls` lists them")
    try:
        named = method(objective["name"])
    except InvalidInput as error:
        raise refused(field, error.message) from error
    if named.missing is not None:
        raise refused(field, f"{named.name!r} is not built; what is missing: {named.missing}")
    if named.out_of_scope is not None:
        raise refused(field, f"{named.name!r} is no preset: {named.out_of_scope}")
    return named


def _merged(fixed: Any, own: Any, field: str, name: str) -> Any:
    """`own` over `fixed`. What has the wrong shape is passed on, for the spec's own check to refuse."""
    if isinstance(fixed, dict) and isinstance(own, dict):
        common = {key: _merged(fixed[key], own[key], f"{field}.{key}", name) for key in fixed if key in own}
        return fixed | own | common
    if isinstance(fixed, list) and isinstance(own, list):
        return _merged_stabilizers(fixed, own) if field == "stabilizers" else _merged_terms(fixed, own, field, name)
    if isinstance(fixed, str) and own != fixed and field.rpartition(".")[2] not in PROSE:
        remedy = f"remove it, or write the objective out: `tutelage methods show {name}` prints it"
        raise refused(field, f"{own!r} contradicts the preset {name!r}, which has {fixed!r}; {remedy}")
    return own


def _merged_terms(fixed: list[Any], own: list[Any], field: str, name: str) -> list[Any]:
    """Each of the author's terms over the method's at its place; a {} leaves one as it is."""
    if len(own) != len(fixed):
        sentence = f"{len(own)} terms for the {len(fixed)} of the preset {name!r}; a table each, {{}} for no change"
        raise refused(field, sentence)
    return [_merged(base, each, f"{field}.{i}", name) for i, (base, each) in enumerate(zip(fixed, own, strict=True))]


def _merged_stabilizers(fixed: list[Any], own: list[Any]) -> list[Any]:
    """The author's, each over the method's of the same kind, then the method's others."""
    merged = []
    for each in own:
        kind = each.get("kind") if isinstance(each, dict) else None
        merged.append(next((base | each for base in fixed if base["kind"] == kind), each))
    given = [each["kind"] for each in merged if isinstance(each, dict) and "kind" in each]
    return merged + [base for base in fixed if base["kind"] not in given]
