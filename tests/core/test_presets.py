"""Every preset that can be run equals its independent float64 reference on recorded tensors: loss and gradient."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from references import FIRST_GAPS, LATER, PROMPTS, REFERENCES, REWARDS, SPECIAL, computed
from references.record import RECORDED
from safetensors.torch import load_file
from torch import Tensor

from tutelage.core.batch import OutputHead, TeacherSignals, TokenBatch
from tutelage.core.loss import loss
from tutelage.core.metrics import values
from tutelage.core.objective import Objective
from tutelage.core.outcome import advantages
from tutelage.core.quantiles import QUANTILES
from tutelage.core.support import needed
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.student import Student
from tutelage.trainer.watching import watched
from tutelage_client.methods import METHODS
from tutelage_client.spec import RunSpec, parse_spec, required_signals, size_asked
from tutelage_client.wire import Capabilities, Signal

BUILT = [each for each in METHODS if each.composition is not None]
BY_NAME = {each.name: each for each in BUILT}
ABLE = Capabilities(signals=frozenset(Signal), max_top_k=64, max_length=99, vocabulary_size=64)
# What a step tells of the student alone, of any teacher that scores, and of one whose whole distribution is there.
ALONE = {
    "loss",
    "tokens",
    "learned_fraction",
    "infinite_fraction",
    "student_entropy",
    "ratio",
    "ratio_max",
    "ratio_ess",
}
HEARD = ALONE | {
    "reverse_kl",
    "reverse_kl_p10",
    "reverse_kl_p90",
    "reverse_kl_max",
    "log_ratio",
    *(f"log_ratio_p{percent}/0-15" for percent in QUANTILES),
    "teacher_entropy",
    "entropy_gap",
    "top_k_overlap",
    "student_overlap_mass",
    "teacher_overlap_mass",
    "student_support_mass",
    "teacher_support_mass",
}
WHOLE = HEARD | {"forward_kl"}
CLIPPED = {"signal_clip": "signal_clip_fraction", "ratio_clip": "ratio_clip_fraction"}


class Special:
    """As much of a student as an objective asks: its special tokens."""

    def special_ids(self, *, keep_eos: bool) -> frozenset[int]:
        assert keep_eos
        return SPECIAL


def spec_of(name: str) -> RunSpec:
    teachers = [] if BY_NAME[name].needs == ("nothing",) else [{"name": "toy"}]
    given = {"name": "run", "student": {"model": "student"}, "teachers": teachers}
    given["data"] = {"train": "prompts.jsonl", "eval": "held-out.jsonl"}
    return parse_spec(given | {"objective": {"kind": "preset", "name": name}})


def recorded_for(spec: RunSpec) -> dict[str, Tensor]:
    """What was recorded; where a step holds other text beside the student's, the last rollout is that."""
    recorded = load_file(RECORDED)
    recorded["position"] = torch.arange(len(recorded["rollout"])) % (recorded["rollout"] == 0).sum()
    if spec.rollout.source in ("mix", "paired", "adaptive"):
        recorded["behaviour_logprob"][recorded["rollout"] == 3] = torch.nan
    return recorded


def signals_of(recorded: dict[str, Tensor], spec: RunSpec, student_RV: Tensor) -> TeacherSignals | None:
    """What a teacher of these logits that returns everything answers to the trainer's question, and no more."""
    teacher_RV, ids_R = recorded["teacher_logits"].to(student_RV.dtype), recorded["token_ids"]
    beside = watched(spec, ABLE)
    asked = required_signals(spec) | beside.signals
    if not asked:
        return None
    logp_RV = teacher_RV.log_softmax(-1)
    said: dict[str, Any] = {"valid_R": torch.ones_like(ids_R, dtype=torch.bool)}
    if Signal.SAMPLED in asked:
        said["sampled_logprob_R"] = logp_RV.gather(-1, ids_R[:, None]).squeeze(-1)
    if Signal.TOP_K in asked:
        top = logp_RV.topk(size_asked(spec.objective, Signal.TOP_K) or needed(beside.top_k, "a size"))
        said |= {"topk_ids_RK": top.indices, "topk_logprob_RK": top.values}
        said["topk_rest_R"] = 1 - top.values.exp().sum(-1)
    if Signal.CANDIDATES in asked:
        named_RC = student_RV.topk(needed(size_asked(spec.objective, Signal.CANDIDATES), "a size")).indices
        said |= {"candidate_ids_RC": named_RC, "candidate_logprob_RC": logp_RV.gather(-1, named_RC)}
        said["candidate_valid_RC"] = torch.ones_like(named_RC, dtype=torch.bool)
    if Signal.ENTROPY in asked:
        said["entropy_R"] = -(logp_RV.exp() * logp_RV).sum(-1)
    if Signal.HIDDEN not in asked:
        return TeacherSignals(**said)
    head = OutputHead(torch.eye(teacher_RV.shape[-1], dtype=teacher_RV.dtype))
    return TeacherSignals(**said, hidden_RH=teacher_RV, head=head)


def outcomes_of(recorded: dict[str, Tensor], spec: RunSpec) -> Tensor | None:
    """The advantage of each row's rollout, where the spec learns from rewards."""
    if spec.reward is None:
        return None
    advantage_B = advantages(spec.reward.advantage, torch.tensor(REWARDS), torch.tensor(PROMPTS))
    return advantage_B[recorded["rollout"]]


def batch_of(spec: RunSpec, dtype: torch.dtype) -> TokenBatch:
    """The recorded tokens as the trainer would hand them over. Both heads are the identity."""
    recorded = recorded_for(spec)
    student_RV = recorded["student_logits"].to(dtype).requires_grad_()
    identity = OutputHead(torch.eye(student_RV.shape[-1], dtype=dtype))
    return TokenBatch(
        hidden_RH=student_RV,
        head=identity,
        token_ids_R=recorded["token_ids"],
        mask_R=recorded["mask"],
        behaviour_logprob_R=recorded["behaviour_logprob"].to(dtype),
        rollout_R=recorded["rollout"],
        position_R=recorded["position"],
        teacher=signals_of(recorded, spec, student_RV.detach()),
        reference_hidden_RH=recorded["reference_logits"].to(dtype),
        reference_head=identity,
        outcome_R=outcomes_of(recorded, spec),
    )


def core_loss(name: str, dtype: torch.dtype, step: int = 0) -> tuple[float, Tensor, int]:
    """At this step, through the spec and the trainer's reading of it."""
    spec = spec_of(name)
    objective: Objective = objective_of(spec, cast(Student, Special()))
    batch = batch_of(spec, dtype)
    total, measured = loss(batch, objective.at(step, first_gaps=FIRST_GAPS if step else {}), chunk_rows=7)
    count = int(cast(Any, measured["tokens"])[0])
    assert values(measured)["loss"] == pytest.approx(total.item() / count)
    return total.item() / count, torch.autograd.grad(total, batch.hidden_RH)[0], count


def test_every_preset_has_its_reference_and_every_reference_a_preset() -> None:
    assert set(REFERENCES) == set(BY_NAME)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"])
@pytest.mark.parametrize("name", BY_NAME)
def test_loss_and_gradient_of_a_preset_are_those_of_its_paper(name: str, dtype: torch.dtype, tolerance: float) -> None:
    value, gradient_RV, count = core_loss(name, dtype)
    expected, expected_RV, expected_count = computed(REFERENCES[name], recorded_for(spec_of(name)))
    assert count == expected_count
    assert value == pytest.approx(expected, rel=tolerance)
    assert (gradient_RV - expected_RV).norm() <= 10 * tolerance * expected_RV.norm()


@pytest.mark.parametrize("name", LATER)
def test_the_later_phase_of_a_preset_is_that_of_its_paper(name: str) -> None:
    step, reference = LATER[name]
    recorded = recorded_for(spec_of(name))
    value, gradient_RV, count = core_loss(name, torch.float64, step)
    expected, expected_RV, expected_count = computed(reference, recorded)
    assert count == expected_count
    assert value == pytest.approx(expected, rel=1e-10)
    assert (gradient_RV - expected_RV).norm() <= 1e-9 * expected_RV.norm()
    before = core_loss(name, torch.float64, step - 1)
    assert before[0] == pytest.approx(computed(REFERENCES[name], recorded)[0], rel=1e-10)
    assert before[0] != pytest.approx(value, rel=1e-3)


def test_the_recorded_tokens_reach_what_presets_bound_and_mask() -> None:
    recorded = load_file(RECORDED)
    found = {
        name: computed(REFERENCES[name], recorded) for name in ("sampled-k1", "opd-plus", "g-opd", "revisiting-opd")
    }
    assert len({value for value, _, _ in found.values()}) == 4
    assert found["revisiting-opd"][2] < found["opd-plus"][2]
    assert not recorded["mask"].all()


@pytest.mark.parametrize("name", BY_NAME)
def test_every_run_with_a_teacher_that_scores_tells_the_same_diagnostics(name: str) -> None:
    spec = spec_of(name)
    objective = objective_of(spec, cast(Student, Special()))
    told = values(loss(batch_of(spec, torch.float64), objective.at(0), chunk_rows=7)[1])
    signals = required_signals(spec)
    expected = ALONE if not signals else WHOLE if Signal.HIDDEN in signals else HEARD
    gaps = set(FIRST_GAPS) if objective.by_text else set()
    clipped = {CLIPPED[each.kind] for each in spec.stabilizers if each.kind in CLIPPED}
    assert told.keys() == expected | clipped | gaps
