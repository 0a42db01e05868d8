"""Two clips on two ratios, the special-token mask and the anchor."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.divergences import divergence
from tutelage.core.stabilizers import ordinary_tokens, ratio_clip, reference_kl, signal_clip

logprobs = st.floats(-30, 0) | st.just(-math.inf)


@settings(deadline=None)
@given(teacher=logprobs, student=st.floats(-30, 0), most=st.floats(0.1, 10))
def test_the_clipped_teacher_is_within_reach_and_untouched_where_it_was(teacher, student, most):
    q, p = torch.tensor([teacher]), torch.tensor([student])
    clipped = signal_clip(q, p, most)
    assert (clipped - p).abs().max() <= most + 1e-4
    if abs(teacher - student) < most - 1e-4:
        assert torch.equal(clipped, q)


def test_the_signal_clip_is_constant_in_the_student():
    student = torch.tensor([-1.0, -2.0], requires_grad=True)
    assert not signal_clip(torch.tensor([-30.0, -2.5]), student, 6.0).requires_grad


def test_the_ratio_weight_is_p_over_mu_clipped_and_detached():
    p = torch.tensor([0.5, 0.5, 0.5, 0.5], requires_grad=True)
    mu = torch.tensor([0.5, 0.01, 1.0, torch.nan])
    weight = ratio_clip(p.log(), mu.log(), 0.8, 2.0)
    assert torch.allclose(weight, torch.tensor([1.0, 2.0, 0.8, 1.0]))
    assert not weight.requires_grad


@settings(deadline=None)
@given(p=st.floats(-30, 0), q=logprobs, low=st.floats(0, 1), high=st.floats(1, 9))
def test_each_clip_sees_its_own_ratio_only(p, q, low, high):
    """p / mu is 1 on fresh text whatever the teacher says; a student like its teacher is heard as it is at any mu."""
    student, other = torch.tensor([p]), torch.tensor([q])
    assert ratio_clip(student, student, low, high).item() == 1
    assert ratio_clip(student, other, low, high).item() == pytest.approx(min(max(math.exp(p - q), low), high), rel=1e-4)
    assert torch.equal(signal_clip(student, student, high), student)
    assert signal_clip(other, student, high).item() == pytest.approx(min(max(q, p - high), p + high), abs=1e-4)


def test_special_tokens_are_not_ordinary():
    assert ordinary_tokens(torch.tensor([0, 5, 7, 5]), frozenset({5, 9})).tolist() == [True, False, True, False]
    assert ordinary_tokens(torch.tensor([0, 5]), frozenset()).all()


def test_the_anchor_is_reverse_kl_to_the_reference(logits):
    student, reference = logits(0, 3, 5), logits(1, 3, 5)
    got = reference_kl(student.log_softmax(-1), reference.log_softmax(-1), 0.25)
    assert torch.allclose(got, 0.25 * divergence("reverse_kl", student, reference))
