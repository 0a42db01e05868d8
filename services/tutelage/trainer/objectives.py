"""The spec's objective, reward and stabilizers in the core's terms: the only place that maps their kinds to code."""

from __future__ import annotations

import math
from typing import Any

from tutelage.core.credit import Credit
from tutelage.core.objective import Objective
from tutelage.core.outcome import Outcome
from tutelage.core.targets import Target
from tutelage.core.terms import Term, Where
from tutelage.trainer.student import Student
from tutelage_client.spec import (
    DivergenceObjective,
    PolicyGradientObjective,
    PreferenceObjective,
    RunSpec,
    SumObjective,
)
from tutelage_client.spec import Objective as SpecObjective
from tutelage_client.spec import Term as SpecTerm
from tutelage_client.spec import credits as spec_credits


def objective_of(spec: RunSpec, student: Student) -> Objective:
    """What the run minimises."""
    wanted = choices(spec.objective)
    if isinstance(spec.objective, SumObjective):
        wanted["terms"] = tuple(map(term_of, spec.objective.terms))
    if spec.reward is not None:
        wanted["outcome"] = Outcome(**spec.reward.model_dump(exclude={"by", "advantage"}))
    for stabilizer in spec.stabilizers:
        if stabilizer.kind == "signal_clip":
            wanted["signal_clip"] = stabilizer.max
        elif stabilizer.kind == "ratio_clip":
            wanted["ratio_clip"] = (stabilizer.min, stabilizer.max)
        elif stabilizer.kind == "freshness":
            wanted["freshness"] = stabilizer.decay
        elif stabilizer.kind == "entropy_gate":
            maximum = math.inf if stabilizer.max is None else stabilizer.max
            wanted["entropy_gate"] = (stabilizer.of, stabilizer.min, maximum)
        elif stabilizer.kind == "special_token_mask":
            wanted["special_ids"] = student.special_ids(keep_eos=stabilizer.keep_eos)
        else:
            wanted["reference_coef"] = stabilizer.coef
    return Objective(**wanted)


def choices(objective: SpecObjective) -> dict[str, Any]:
    """The fields of an objective by itself, no sum."""
    if isinstance(objective, PreferenceObjective):
        return {"kind": objective.kind, "preference_beta": objective.beta}
    wanted = objective.model_dump(exclude={"support", "target", "credit", "terms"}, exclude_none=True)
    if isinstance(objective, DivergenceObjective):
        wanted |= {"support": objective.support.kind} | objective.support.model_dump(exclude={"kind", "k"})
    if isinstance(objective, DivergenceObjective | PolicyGradientObjective):
        wanted["target"] = Target(**objective.target.model_dump(exclude_none=True))
    if isinstance(objective, PolicyGradientObjective):
        wanted["credit"] = credit_of(objective.credit)
    return wanted


def term_of(term: SpecTerm) -> Term:
    """A term of a sum."""
    where = Where(**term.where.model_dump())
    objective, kept = Objective(**choices(term.objective)), term.model_dump(exclude={"objective", "where"})
    return Term(objective, where=where, **kept)


def credit_of(credit: spec_credits.Credit) -> Credit:
    """The spec's credit in the core's terms: a return to go is one over all steps."""
    given: dict[str, Any] = {"steps": None if credit.kind == "return_to_go" else 1}
    if credit.kind == "control_variate":
        given["baseline"] = True
    return Credit(**(given | credit.model_dump(exclude={"kind"})))
