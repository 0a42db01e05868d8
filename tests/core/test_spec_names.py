"""The spec names exactly what the core has: each divergence, its parameter, and what a written token can estimate."""

from __future__ import annotations

from typing import get_args

from tutelage.core.divergences import DIVERGENCES, F_DIVERGENCES, PARAMETERS
from tutelage.core.estimators import ESTIMATORS
from tutelage_client.spec.objectives import (
    DIVERGENCE_PARAMETERS,
    SAMPLED_DIVERGENCES,
    DivergenceKind,
    FDivergenceKind,
)


def test_the_spec_takes_every_divergence_and_no_other() -> None:
    assert set(get_args(DivergenceKind)) == set(DIVERGENCES)
    assert set(get_args(FDivergenceKind)) == set(F_DIVERGENCES)
    assert {kind: parameter.name for kind, parameter in PARAMETERS.items()} == DIVERGENCE_PARAMETERS
    assert set(SAMPLED_DIVERGENCES) == set(ESTIMATORS)
