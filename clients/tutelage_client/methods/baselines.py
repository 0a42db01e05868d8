"""Baselines: off-policy training, and the control without a teacher."""

from __future__ import annotations

from tutelage_client.methods.method import Method

BASELINES = (
    Method(
        name="sft",
        title="Supervised fine-tuning",
        formula="-sum_t log p(y_t | s_t), y from data",
        section="baseline",
        feedback="logit",
        access="none",
        granularity="token",
        needs=("nothing",),
        on_policy="adjacent",
        evidence="unchecked",
        failures="exposure bias: the student never meets its own mistakes; forgets more than on-policy training",
        composition={"rollout": {"source": "data"}, "objective": {"kind": "supervised"}},
    ),
    Method(
        name="seqkd",
        title="Sequence-level knowledge distillation",
        formula="-sum_t log p(y_t | s_t), y ~ q",
        section="baseline",
        feedback="logit",
        access="black_box",
        granularity="sequence",
        needs=("text",),
        on_policy="adjacent",
        evidence="unchecked",
        failures="exposure bias, as with supervised fine-tuning",
        composition={"rollout": {"source": "teacher"}, "objective": {"kind": "supervised"}},
    ),
    Method(
        name="token-kd",
        title="Token-level knowledge distillation on the teacher's text",
        formula="sum_t KL(q || p)(s_t), y ~ q",
        section="baseline",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("text", "full"),
        on_policy="adjacent",
        evidence="unchecked",
        failures="exposure bias; forward KL spreads a small student over modes that it cannot do",
        composition={
            "rollout": {"source": "teacher"},
            "objective": {"kind": "divergence", "divergence": "forward_kl"},
        },
    ),
    Method(
        name="constant-penalty",
        title="Constant penalty, the control without a teacher",
        year=2026,
        arxiv="2608.31046",
        formula="A_t = -c on tokens with p(y_t | s_t) <= max_probability",
        section="baseline",
        feedback="self_play",
        access="none",
        granularity="token",
        needs=("nothing",),
        on_policy="strict",
        evidence="second_hand",
        failures="a control, not a recipe: it shows how much of a gain comes from lowering unlikely tokens alone",
        composition={"rollout": {"source": "student"}, "objective": {"kind": "constant_penalty"}},
    ),
)
