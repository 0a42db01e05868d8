"""Which field of a spec asks the teacher for which signals, and what could stand there where it returns fewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from tutelage_client.spec.objectives import simple_signals
from tutelage_client.spec.stabilizers import EntropyGate
from tutelage_client.spec.sums import SumObjective, parts
from tutelage_client.spec.supports import SUPPORT_SIGNALS
from tutelage_client.wire.teachers import Signal

if TYPE_CHECKING:
    from tutelage_client.spec.run import RunSpec

# The keys of an objective that decide what it asks, with the kinds that may stand there.
CHOICES = {"support": tuple(SUPPORT_SIGNALS), "credit": ("token", "return_to_go", "k_step_return", "control_variate")}


class Unmet(NamedTuple):
    """field: what asks for more than there is; missing: the signals; able: kinds that would do in its place."""

    field: str
    missing: tuple[Signal, ...]
    able: tuple[str, ...]


def signals_by_field(spec: RunSpec) -> dict[str, frozenset[Signal]]:
    """What is asked at every token, by the field that asks; empty where no scores are needed."""
    fields: dict[str, frozenset[Signal]] = {}
    for field, part, where in parts(spec.objective):
        choice = next((f".{key}" for key in CHOICES if hasattr(part, key)), "")
        fields[field + choice] = simple_signals(part)
        fields[f"{field.removesuffix('.objective')}.where"] = where.signals
    if spec.reward is not None and spec.reward.teacher_share > 0:
        fields["reward.teacher_share"] = frozenset({Signal.SAMPLED})
    whole = any(Signal.HIDDEN in signals for signals in fields.values()) and not isinstance(
        spec.objective, SumObjective
    )
    for index, stabilizer in enumerate(spec.stabilizers):
        if isinstance(stabilizer, EntropyGate) and stabilizer.of == "teacher" and not whole:
            fields[f"stabilizers.{index}"] = frozenset({Signal.ENTROPY})  # the whole distribution has its entropy in it
    if spec.rollout.teacher_share is not None:
        fields["rollout.source"] = frozenset({Signal.SAMPLED})  # of which mu is made
    return {field: signals for field, signals in fields.items() if signals}


def unmet(spec: RunSpec, signals: frozenset[Signal]) -> Unmet | None:
    """The first field that asks for more than these signals; None where they suffice."""
    for field, wanted in signals_by_field(spec).items():
        if missing := wanted - signals:
            kinds = CHOICES.get(field.rpartition(".")[2], ())
            return Unmet(field, tuple(sorted(missing)), tuple(k for k in kinds if _would_do(spec, field, k, signals)))
    return None


def _would_do(spec: RunSpec, field: str, kind: str, signals: frozenset[Signal]) -> bool:
    """Whether the spec is one with this kind at the field, and then asks no more than these signals there."""
    document = node = spec.model_dump(mode="json")
    *path, key = field.split(".")
    for step in path:
        node: Any = node[int(step)] if isinstance(node, list) else node[step]
    node[key] = {"kind": kind}
    try:
        other = type(spec).model_validate(document)
    except ValidationError:
        return False
    return signals_by_field(other).get(field, frozenset()) <= signals
