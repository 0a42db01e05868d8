"""What the trainer makes of the objective of a spec."""

from __future__ import annotations

from tutelage.core.credit import Credit
from tutelage.trainer.objectives import credit_of
from tutelage_client.spec import ControlVariate, KStepReturn, ReturnToGo, TokenCredit


def test_the_credits_of_a_spec_are_how_far_the_core_looks_ahead() -> None:
    assert credit_of(TokenCredit(floor=-3.0)) == Credit(steps=1, floor=-3.0)
    assert credit_of(KStepReturn(steps=4, discount=0.5)) == Credit(steps=4, discount=0.5)
    assert credit_of(ControlVariate()) == Credit(baseline=True)
    assert credit_of(ReturnToGo(length_normalised=True)) == Credit(steps=None, length_normalised=True)
