"""DistiLLM and its skewed divergences."""

from __future__ import annotations

from tutelage_client.methods.method import Method

SKEWED = (
    Method(
        name="distillm-skl",
        title="Skewed forward KL, the loss of DistiLLM",
        year=2024,
        arxiv="2402.03898",
        formula="KL(q || a q + (1-a) p), a = 0.1",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="partial",
        evidence="primary",
        defaults="released code: a 0.1",
        composition={"objective": {"kind": "divergence", "divergence": "skew_forward_kl", "alpha": 0.1}},
        differs="whose text is learned from is the spec's choice; the adaptive schedule is `distillm`",
    ),
    Method(
        name="distillm-srkl",
        title="Skewed reverse KL, the loss of DistiLLM",
        year=2024,
        arxiv="2402.03898",
        formula="KL(p || (1-a) q + a p), a = 0.1",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="partial",
        evidence="primary",
        defaults="released code: a 0.1",
        composition={"objective": {"kind": "divergence", "divergence": "skew_reverse_kl", "alpha": 0.1}},
        differs="whose text is learned from is the spec's choice; the adaptive schedule is `distillm`",
    ),
    Method(
        name="distillm",
        title="DistiLLM",
        year=2024,
        arxiv="2402.03898",
        formula="skewed KL, a = 0.1, on student text with probability phi, else data; phi grows with validation loss",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="partial",
        evidence="primary",
        defaults="released code: phi from 0, +0.1 whenever validation loss worsens, at most 1; replay buffer of 1000",
        missing="a share of student text that follows the validation loss, and a replay buffer; its losses are "
        "`distillm-skl` and `distillm-srkl`",
    ),
    Method(
        name="distillm-2",
        title="DistiLLM-2",
        year=2025,
        arxiv="2503.07067",
        formula="(2-b) skewed forward KL on teacher text + b skewed reverse KL on student text",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="partial",
        evidence="primary",
        defaults="code: a0 0.1 and per sample 1-(1-a0) mbar/m within [0.01, a0]; b 1; LoRA rank 16, lr 5e-5, 1 epoch",
        failures="text is written once an epoch, so it ages",
        composition={
            "rollout": {"source": "paired", "temperature": 1.0, "samples_per_prompt": 1},
            "objective": {
                "kind": "sum",
                "terms": [
                    {
                        "objective": {"kind": "divergence", "divergence": "skew_forward_kl", "alpha": 0.1},
                        "where": {"text": "other"},
                    },
                    {
                        "objective": {"kind": "divergence", "divergence": "skew_reverse_kl", "alpha": 0.1},
                        "where": {"text": "student"},
                    },
                ],
            },
        },
        differs="the teacher's text is the completion in your data, the student's is fresh; a is the same for each "
        "sample; gradients flow through p in the mixture, where the code detaches it; b moves only by your weights",
    ),
)
