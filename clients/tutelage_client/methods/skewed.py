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
        failures="by its formula: with a near 0 the ratio q/p is unbounded again, with a near 1 nothing is left to "
        "learn",
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
        failures="by its formula: with a near 0 the ratio p/q is unbounded again, with a near 1 nothing is left to "
        "learn",
        composition={"objective": {"kind": "divergence", "divergence": "skew_reverse_kl", "alpha": 0.1}},
        differs="whose text is learned from is the spec's choice; the adaptive schedule is `distillm`",
    ),
    Method(
        name="distillm",
        title="DistiLLM",
        year=2024,
        arxiv="2402.03898",
        formula="skewed KL, a = 0.1; one draw r a step: fresh student text if r < phi (1 - t/T) or the buffer is not "
        "full, else replayed; data if r >= phi",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="partial",
        evidence="primary",
        defaults="released code: phi from 0, +0.1 where the validation loss is at least 0.1 above that of the last "
        "rise, at most 1; replay buffer of 1000; skewed forward KL in its script",
        failures="phi stays where it is while the validation loss falls, so a run may learn from data alone; replayed "
        "text is of an older student",
        composition={
            "rollout": {
                "source": "adaptive",
                "temperature": 1.0,
                "top_p": 1.0,
                "adaptive": {"initial_share": 0.0, "rise": 0.1, "tolerance": 0.1, "capacity": 1000},
            },
            "objective": {"kind": "divergence", "divergence": "skew_forward_kl", "alpha": 0.1},
        },
        differs="no language-modelling loss on pre-training text, which the released script adds; the validation loss "
        "is measured every eval.every steps, once an epoch there; steps are counted from 0",
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
        needs=("full", "sampled"),
        on_policy="partial",
        evidence="primary",
        defaults="code: a0 0.1 and per sample 1-(1-a0) m0/m within [0.01, a0], which its settings leave off; b 1, or "
        "1 + 0.5 min(1, 2t/T) if asked; LoRA rank 16, lr 5e-5, 1 epoch",
        failures="text is written once an epoch, so it ages",
        composition={
            "rollout": {"source": "paired", "temperature": 1.0, "samples_per_prompt": 1},
            "objective": {
                "kind": "sum",
                "terms": [
                    {
                        "objective": {
                            "kind": "divergence",
                            "divergence": "skew_forward_kl",
                            "alpha": 0.1,
                            "alpha_by_text": True,
                        },
                        "where": {"text": "other"},
                    },
                    {
                        "objective": {
                            "kind": "divergence",
                            "divergence": "skew_reverse_kl",
                            "alpha": 0.1,
                            "alpha_by_text": True,
                        },
                        "where": {"text": "student"},
                    },
                ],
            },
        },
        differs="the teacher's text is the completion in your data, the student's is fresh; gradients flow through p "
        "in the mixture, where the code detaches it; b rises to 1.5 if you give the terms final_weight 0.5 and 1.5, "
        "each with over_steps half of the run",
    ),
)
