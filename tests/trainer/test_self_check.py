"""Student and teacher are the same weights: every loss is zero and so is its gradient."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.batch import OutputHead
from tutelage.engines.hf import HfEngine, open_hf
from tutelage.engines.options import HfOptions
from tutelage.trainer.build import output_head
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.marking import Scored
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.questions import checked, needs_candidates, question
from tutelage_client.wire import ScoreReply, decode_reply, decode_request, encode_reply, encode_request

SUPPORTS = [
    {"kind": "full"},
    *(
        {"kind": kind, "k": 6, "rest": rest}
        for kind in ("teacher_top_k", "student_top_k", "union_top_k")
        for rest in ("tail", "renormalise")
    ),
    {"kind": "sampled"},
]
OBJECTIVES: list[dict[str, Any]] = [
    {"kind": "divergence", "divergence": name, "support": support}
    for name in ("reverse_kl", "forward_kl", "jsd")
    for support in SUPPORTS
    if (name, support["kind"]) != ("jsd", "sampled")
]
OBJECTIVES += [{"kind": "policy_gradient", "divergence": name} for name in ("reverse_kl", "forward_kl", "jsd")]
OBJECTIVES += [
    {"kind": "policy_gradient", "credit": {"kind": kind}}
    for kind in ("k_step_return", "return_to_go", "control_variate")
]


@pytest.fixture(scope="module")
def teacher(model_dir: Path) -> HfEngine:
    return open_hf(HfOptions(model=str(model_dir), device="cpu"), "toy")


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
async def test_a_student_has_nothing_to_learn_from_itself(
    objective: dict[str, Any], teacher: HfEngine, make_spec: Any, make_student: Any, random_rollouts: Any
) -> None:
    spec = make_spec(objective)
    student = make_student(spec)
    heads: dict[str | None, OutputHead] = {None: output_head(teacher.head(), student)}
    k = needs_candidates(spec)
    scored = []
    for rollout in random_rollouts(6, 4):
        ids = student.top_ids(rollout, k) if k else None
        request = decode_request(encode_request(question(spec, rollout, ids)))
        blocks, usage = await teacher.score(request.groups(), request.signals, request.top_k)
        reply = ScoreReply(scores=tuple(blocks), provenance=teacher.provenance, usage=usage)
        scored.append(Scored(rollout, checked(request, decode_reply(encode_reply(reply)), teacher.provenance), ids))
    batches = micro_batches(scored, 64, student.pad_id, torch.device("cpu"), heads, asks_teacher=True)
    learned = student.learn(batches, objective_of(spec, student))
    assert learned["learned_tokens"] == sum(len(s.rollout.completion_ids) for s in scored)
    assert abs(learned["loss"]) < 1e-5
    assert learned["grad_norm"] < 1e-4
