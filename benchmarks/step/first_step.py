"""The first optimiser step on given completions: what every side must agree on before times mean anything.

The completions are the student's own, sampled once; each side gets their token ids. The loss is the sum over all
completion tokens of KL(student || teacher) over the full vocabulary, divided once by the number of those tokens. TRL
divides by the same number (its `num_items_in_batch` is the sum of the completion mask), so no factor stands between the
two; `agree` compares the token counts and the sums as well as the means.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tutelage.engines.loading import load_model
from tutelage.engines.sampling import sample
from tutelage.engines.tokenizer import encode_prompt, eos_ids, load_tokenizer
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Rollout

# float32 on both sides, sums in another order
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


class FirstStep(NamedTuple):
    """Nats per token, the norm of the mean loss's gradient before any clip, and how many tokens were learned from."""

    loss: float
    grad_norm: float
    tokens: int


def written(spec: RunSpec) -> list[Rollout]:
    """One completion of the untrained student for each of the first prompts of the data."""
    model, tokenizer = (
        load_model(spec.student.model, None, "float32", torch.device("cpu")),
        load_tokenizer(spec.student.model, None),
    )
    lines = Path(str(spec.data.train)).read_text().splitlines()[: spec.rollout.prompts_per_step]
    prompts = [json.loads(line)["prompt"] for line in lines]
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    rows = sample(
        model,
        ids,
        max_new_tokens=spec.rollout.max_new_tokens,
        temperature=spec.rollout.temperature,
        eos_ids=eos_ids(model, tokenizer),
        pad_id=tokenizer.pad_token_id,
        generator=torch.Generator().manual_seed(spec.seed),
    )
    return [
        Rollout(
            id=f"first-{row.index}",
            source="pushed",
            policy_version=0,
            prompt=prompts[row.index],
            prompt_ids=np.array(ids[row.index], dtype=np.int32),
            completion_ids=np.array(row.token_ids, dtype=np.int32),
            mask=np.ones(len(row.token_ids), dtype=np.bool_),
            finish_reason=row.finish_reason,
        )
        for row in sorted(rows, key=lambda row: row.index)
    ]


def reference(student: Path | str, teacher: Path | str, rollouts: list[Rollout]) -> FirstStep:
    """The step in the fewest lines: one sequence at a time, whole logits, nothing padded, cached or chunked."""
    p, q = (AutoModelForCausalLM.from_pretrained(str(path), dtype="float32") for path in (student, teacher))
    tokens = sum(len(rollout.completion_ids) for rollout in rollouts)
    total = 0.0
    for rollout in rollouts:
        start = len(rollout.prompt_ids)
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.completion_ids])).long()[None]
        student_logp = p(ids).logits[0, start - 1 : -1].log_softmax(-1)
        with torch.no_grad():
            teacher_logp = q(ids).logits[0, start - 1 : -1].log_softmax(-1)
        loss = (student_logp.exp() * (student_logp - teacher_logp)).sum() / tokens
        loss.backward()
        total += float(loss.detach())
    norm = torch.stack([weight.grad.norm() for weight in p.parameters() if weight.grad is not None]).norm()
    return FirstStep(total, float(norm), tokens)


def agree(one: FirstStep, other: FirstStep) -> bool:
    """Equal losses and gradient norms on equally many tokens, to float32's accuracy."""
    return (
        one.tokens == other.tokens
        and bool(np.isclose(one.loss, other.loss, rtol=LOSS_TOLERANCE, atol=0))
        and bool(np.isclose(one.loss * one.tokens, other.loss * other.tokens, rtol=LOSS_TOLERANCE, atol=0))
        and bool(np.isclose(one.grad_norm, other.grad_norm, rtol=GRADIENT_TOLERANCE, atol=0))
    )
