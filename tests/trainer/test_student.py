"""The student: schedules, clipping, precision, adapters, the anchor to its start, and its own top tokens."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tutelage.core.objective import Objective
from tutelage.trainer import saving
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.loading import load_student
from tutelage.trainer.marking import Scored
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.optimizer import lr_scale
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import Optim

SUPERVISED = {"kind": "supervised"}
# peft asks transformers by a name that transformers has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
ANCHOR = [{"kind": "reference_kl", "coef": 1.0}]


@pytest.fixture(scope="module")
def learn(random_rollouts: Any) -> Any:
    def learn(student: Any, seed: int = 0, objective: Objective | None = None) -> dict[str, float | None]:
        scored = [Scored(r, None) for r in random_rollouts(4, seed)]
        batches = micro_batches(scored, 256, student.pad_id, student.device, {}, asks_teacher=False)
        return student.learn(batches, objective or objective_of(student.spec, student))

    return learn


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1, 1, 1, 1, 1]),
        ("linear", [0.5, 1, 1, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1, 1, 0.5 * (1 + math.cos(math.pi / 4)), 0.5, 0.5 * (1 + math.cos(3 * math.pi / 4))]),
    ],
)
def test_the_rate_warms_up_and_then_follows_its_schedule(schedule: Any, expected: list[float]) -> None:
    optim = Optim(schedule=schedule, warmup_steps=2, steps=6)
    assert [lr_scale(optim, step) for step in range(6)] == pytest.approx(expected)


def test_a_step_reports_the_rate_that_it_used(make_spec: Any, make_student: Any, learn: Any) -> None:
    student = make_student(make_spec(SUPERVISED, optim={"lr": 0.01, "schedule": "linear", "steps": 4}))
    assert [learn(student)["lr"] for _ in range(4)] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


def test_a_long_gradient_is_cut_to_its_limit(make_spec: Any, make_student: Any, learn: Any) -> None:
    free, bounded = (make_student(make_spec(SUPERVISED, optim={"max_grad_norm": m})) for m in (1e6, 0.01))
    norms = [learn(student)["grad_norm"] for student in (free, bounded)]
    assert norms[0] == pytest.approx(norms[1])
    moments = [
        torch.cat([s.optimizer.adamw.state[p]["exp_avg"].flatten() for p in s.trained.values()]) * 10
        for s in (free, bounded)
    ]
    assert float(moments[0].norm()) == pytest.approx(norms[0], rel=1e-4)
    assert float(moments[1].norm()) == pytest.approx(0.01, rel=1e-4)


def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_the_weights(
    make_spec: Any, make_student: Any, learn: Any
) -> None:
    student = make_student(make_spec(SUPERVISED))
    with torch.no_grad():
        student.model.lm_head.weight[0, 0] = torch.inf
    before = {name: p.detach().clone() for name, p in student.trained.items()}
    with pytest.raises(ArithmeticError, match=r"lower optim\.lr"):
        learn(student)
    assert all(torch.equal(p, before[name]) for name, p in student.trained.items())


def test_a_step_without_a_token_to_learn_from_changes_nothing(make_spec: Any, make_student: Any) -> None:
    student = make_student(make_spec(SUPERVISED))
    before = {name: p.detach().clone() for name, p in student.trained.items()}
    learned = student.learn([], Objective(kind="supervised"))
    assert learned["learned_tokens"] is None or learned["learned_tokens"] == 0
    assert learned["grad_norm"] is None
    assert student.step == 1
    assert all(torch.equal(p, before[name]) for name, p in student.trained.items())


def test_bfloat16_learns_with_float32_weights(make_spec: Any, make_student: Any, learn: Any) -> None:
    student = make_student(make_spec(SUPERVISED, student={"dtype": "bfloat16"}))
    losses = [learn(student)["loss"] for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]
    assert {p.dtype for p in student.trained.values()} == {torch.float32}


def test_lora_trains_its_adapters_alone(make_spec: Any, make_student: Any, learn: Any) -> None:
    student = make_student(make_spec(SUPERVISED, student={"lora": {"rank": 4}}))
    before = {name: p.detach().clone() for name, p in student.model.named_parameters()}
    losses = [learn(student)["loss"] for _ in range(6)]
    assert losses[-1] < losses[0]
    changed = {name for name, p in student.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert changed <= set(student.trained)
    assert all("lora_" in name for name in student.trained)


@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_the_exported_model_is_the_student(
    lora: dict[str, Any], tmp_path: Path, make_spec: Any, make_student: Any, learn: Any
) -> None:
    student = make_student(make_spec(SUPERVISED, student=lora))
    for _ in range(3):
        learn(student)
    ids = torch.arange(2, 22)[None]
    with torch.no_grad():
        expected = student.model.eval()(input_ids=ids).logits
        saving.export(student, tmp_path)
        exported = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True)
        torch.testing.assert_close(exported(input_ids=ids).logits, expected, rtol=0, atol=1e-4)
    assert (tmp_path / "tokenizer.json").exists()
    assert not (tmp_path / "adapter_config.json").exists()


@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_the_anchor_is_the_student_as_it_was_at_the_start(
    lora: dict[str, Any], make_spec: Any, make_student: Any, learn: Any, random_rollouts: Any
) -> None:
    """At the start the anchor adds nothing; later it adds exactly KL(p || p0) to the supervised loss."""
    student, start = (make_student(make_spec(SUPERVISED, student=lora, stabilizers=ANCHOR)) for _ in range(2))
    plain = Objective(kind="supervised")
    assert learn(student)["loss"] == pytest.approx(learn(make_student(start.spec), objective=plain)["loss"], abs=1e-6)
    for _ in range(3):
        learn(student, objective=plain)
    kls = []
    for r in random_rollouts(4, 0):
        ids = torch.from_numpy(np.concatenate([r.prompt_ids, r.completion_ids])).long()[None]
        with torch.no_grad():
            p, p0 = (
                s.model.eval()(input_ids=ids).logits[0, len(r.prompt_ids) - 1 : -1].log_softmax(-1)
                for s in (student, start)
            )
        kls.append((p.exp() * (p - p0)).sum(-1))
    kl = float(torch.cat(kls).mean())
    state = {name: p.detach().clone() for name, p in student.trained.items()}
    without = learn(student, objective=plain)["loss"]
    with torch.no_grad():
        for name, p in student.trained.items():
            p.copy_(state[name])
    assert kl > 1e-3
    assert learn(student)["loss"] - without == pytest.approx(kl, rel=1e-3)


@pytest.fixture(scope="module")
def other_dir(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A wider and shallower model with four entries of padding behind the student's tokens."""
    folder = tmp_path_factory.mktemp("other")
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 4,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("lora", [{}, {"lora": {"rank": 4}}], ids=["full", "lora"])
def test_a_reference_may_be_any_model_that_reads_the_students_tokens(
    lora: dict[str, Any], make_spec: Any, model_dir: Path, other_dir: Path, learn: Any, random_rollouts: Any
) -> None:
    spec = make_spec(SUPERVISED, student=lora, stabilizers=ANCHOR, reference={"model": str(other_dir)})
    student, plain = (load_student(model_dir, spec, other_dir) for _ in range(2))
    assert student.contexts == {"student": 64, "reference": 32}
    other = AutoModelForCausalLM.from_pretrained(other_dir, local_files_only=True)
    kls = []
    for r in random_rollouts(4, 0):
        ids = torch.from_numpy(np.concatenate([r.prompt_ids, r.completion_ids])).long()[None]
        with torch.no_grad():
            p, ref = (
                m.eval()(input_ids=ids).logits[0, len(r.prompt_ids) - 1 : -1, : len(student.tokenizer)].log_softmax(-1)
                for m in (student.model, other)
            )
        kls.append((p.exp() * (p - ref)).sum(-1))
    before = {name: p.clone() for name, p in other.named_parameters()}
    added = learn(student)["loss"] - learn(plain, objective=Objective(kind="supervised"))["loss"]
    assert added == pytest.approx(float(torch.cat(kls).mean()), rel=1e-3)
    assert student.reference is not None
    assert all(torch.equal(p, before[name]) for name, p in student.reference.model.named_parameters())


def test_a_reference_that_nothing_looks_at_is_not_loaded(make_spec: Any, model_dir: Path, tmp_path: Path) -> None:
    target = {"kind": "extrapolation", "scale": 1.0}
    spec = make_spec({"kind": "policy_gradient", "target": target}, reference={"model": str(tmp_path)})
    assert load_student(model_dir, spec, tmp_path).reference is None


def test_a_reference_that_cannot_be_one_is_refused_by_its_field(
    make_spec: Any, model_dir: Path, other_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(other_dir, tmp_path / "foreign")
    words = json.loads((other_dir / "tokenizer.json").read_text())
    words["model"]["vocab"] |= {"b": words["model"]["vocab"]["a"], "a": words["model"]["vocab"]["b"]}
    (tmp_path / "foreign" / "tokenizer.json").write_text(json.dumps(words))
    for folder, said in ((tmp_path / "foreign", "tokenizer is not the student's"), (tmp_path, "reference.model: ")):
        spec = make_spec(SUPERVISED, stabilizers=ANCHOR, reference={"model": str(folder)})
        with pytest.raises(InvalidInput, match=said) as refused:
            load_student(model_dir, spec, folder)
        assert refused.value.field == "reference.model"


@pytest.mark.parametrize("k", [1, 5, 100])
def test_the_top_tokens_are_those_of_a_plain_forward(
    k: int, make_spec: Any, make_student: Any, random_rollouts: Any
) -> None:
    student = make_student(make_spec(SUPERVISED))
    for rollout in random_rollouts(3, 9):
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.completion_ids])).long()
        with torch.no_grad():
            logits = student.model.eval()(input_ids=ids[None]).logits[0, len(rollout.prompt_ids) - 1 : -1]
        expected = logits.topk(min(k, 28), dim=-1).indices
        np.testing.assert_array_equal(student.top_ids(rollout, k), expected.numpy())


def test_a_folder_without_a_model_is_refused_by_its_field(tmp_path: Path, make_spec: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^student\.model: ") as refused:
        load_student(tmp_path, make_spec(SUPERVISED))
    assert refused.value.field == "student.model"
