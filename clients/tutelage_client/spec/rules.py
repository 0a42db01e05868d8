"""Which settings do not go together, each of them fine alone."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage_client.spec.objectives import DivergenceObjective, Objective, signals_asked
from tutelage_client.spec.sections import Data, RolloutSpec, TeacherRef
from tutelage_client.spec.stabilizers import Stabilizer

# Which objective can learn from whose text.
SOURCES: dict[str, tuple[str, ...]] = {
    "divergence": ("student", "teacher", "data", "mix", "pushed"),
    "policy_gradient": ("student", "pushed"),
    "supervised": ("teacher", "data", "pushed"),
    "constant_penalty": ("student", "pushed"),
}


def check_source(rollout: RolloutSpec, objective: Objective) -> None:
    """The objective can learn from this text."""
    source, kind = rollout.source, objective.kind
    if source not in SOURCES[kind]:
        raise ValueError(
            f"rollout.source = {source!r} does not go with objective.kind = {kind!r}; it can learn from "
            f"{', '.join(SOURCES[kind])}"
        )
    sampled = isinstance(objective, DivergenceObjective) and objective.support.kind == "sampled"
    if sampled and source not in ("student", "pushed"):
        raise ValueError(
            f"objective.support kind 'sampled' is unbiased on student text only, not on rollout.source = {source!r}"
        )


def check_teachers(teachers: Sequence[TeacherRef], rollout: RolloutSpec, objective: Objective) -> None:
    """A teacher is named exactly if one is asked."""
    needed = bool(signals_asked(objective)) or rollout.source == "teacher"
    if needed and not teachers:
        raise ValueError("this objective or rollout.source needs a teacher; add [[teachers]] with a registered name")
    if teachers and not needed:
        raise ValueError(
            "teachers is given, but neither the objective nor rollout.source asks one; remove [[teachers]]"
        )


def check_data(data: Data, rollout: RolloutSpec) -> None:
    """Prompts are named exactly if they are read."""
    if rollout.source != "pushed" and data.train is None:
        raise ValueError(f"rollout.source = {rollout.source!r} needs data.train, a JSON-lines file of prompts")
    if rollout.source == "pushed" and data.train is not None:
        raise ValueError('data.train is not read with rollout.source = "pushed"; remove it')


def check_stabilizers(stabilizers: Sequence[Stabilizer], rollout: RolloutSpec, objective: Objective) -> None:
    """Each stabilizer is there once and has what it works on."""
    kinds = [s.kind for s in stabilizers]
    repeated = {kind for kind in kinds if kinds.count(kind) > 1}
    if repeated:
        raise ValueError(f"stabilizers names {', '.join(sorted(repeated))} more than once")
    if "signal_clip" in kinds and not signals_asked(objective):
        raise ValueError(
            f"stabilizer 'signal_clip' needs a teacher signal, objective.kind = {objective.kind!r} has none"
        )
    if "ratio_clip" in kinds and rollout.source not in ("student", "mix", "pushed"):
        raise ValueError(f"stabilizer 'ratio_clip' needs student text, rollout.source is {rollout.source!r}")
