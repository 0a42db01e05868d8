"""Methods that estimate a divergence from written tokens, and differ in the credit that each token gets."""

from __future__ import annotations

from tutelage_client.methods.method import Method

CREDIT = (
    Method(
        name="sampled-k1",
        title="Sampled-token reverse KL as an advantage",
        year=2025,
        page="https://thinkingmachines.ai/blog/on-policy-distillation/",
        formula="A_t = sg(log q - log p)(y_t); loss -rho_t A_t, rho = p/mu, discount 0",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("sampled",),
        on_policy="strict",
        evidence="second_hand",
        defaults="discount 0 (the blog post of Thinking Machines)",
        failures="k1 by plain backpropagation learns nothing of the teacher; normalised advantages erase the signal; a "
        "heavy negative tail makes it noisy",
        composition={"rollout": {"source": "student"}, "objective": {"kind": "policy_gradient"}},
    ),
    Method(
        name="minillm",
        title="MiniLLM",
        year=2023,
        arxiv="2306.08543",
        formula="grad = -E[sum_t (sum_(t' >= t) R_t' - 1) grad log p(y_t)], single-step term exact; y ~ 0.2 q + 0.8 p",
        section="5.1 white-box teacher",
        feedback="logit",
        access="white_box",
        granularity="hybrid",
        needs=("text", "full", "sampled"),
        on_policy="partial",
        evidence="primary",
        defaults="teacher share 0.2 (paper); code: return by length, discount 0.95, whitened advantages, pre-training "
        "loss",
        failures="return-to-go has high variance on long text",
        composition={
            "rollout": {"source": "teacher_mixed", "teacher_share": 0.2},
            "objective": {
                "kind": "sum",
                "terms": [
                    {"objective": {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "full"}}},
                    {
                        "objective": {
                            "kind": "policy_gradient",
                            "credit": {"kind": "return_to_go", "own": False, "length_normalised": True},
                        },
                    },
                ],
            },
            "stabilizers": [{"kind": "ratio_clip", "max": 1.25}],
        },
        differs="each text is learned from once, where p is still the student that wrote, so that the PPO clip of the "
        "code's later passes has nothing to clip; advantages are not whitened, rewards not scaled or clipped; no loss "
        "on pre-training text, for which a run has no file; the weight p/mu is on both terms, as the paper has it, "
        "where its code weighs the sampled one alone; the return of what follows is its mean",
    ),
    Method(
        name="ketchup",
        title="KETCHUP, K-step return",
        year=2025,
        arxiv="2504.19024",
        formula="A_t = sum of R over K steps in place of the full return",
        section="4.3 RL-augmented",
        feedback="logit",
        access="white_box",
        granularity="hybrid",
        needs=("sampled",),
        on_policy="strict",
        evidence="second_hand",
        defaults="K 8 is ours, the paper's was not captured",
        failures="a short return is biased: it does not see what the token leads to later",
        composition={
            "rollout": {"source": "student"},
            "objective": {"kind": "policy_gradient", "credit": {"kind": "k_step_return", "steps": 8}},
        },
        differs="the rewards are R = log q - log p; those by the Bellman equation on the teacher's logits were not "
        "seen in full; K is yours to set",
    ),
    Method(
        name="vopd",
        title="vOPD, a KL for a KL",
        year=2026,
        arxiv="2605.07865",
        formula="a_t = sg(R_t + KL(p || q)(s_t)); mean zero in each state",
        section="4.1 fixed divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="strict",
        evidence="second_hand",
        defaults="the baseline over top-k instead of the vocabulary, for speed (notes on the paper)",
        failures="by its formula: the baseline takes away what all tokens of a state share, no variance of what "
        "follows, and over the whole vocabulary it costs what the exact divergence does",
        composition={
            "rollout": {"source": "student"},
            "objective": {"kind": "policy_gradient", "credit": {"kind": "control_variate"}},
        },
        differs="the baseline is over the whole vocabulary",
    ),
    Method(
        name="opd-plus",
        title="OPD+, the corrected f-divergence advantage",
        year=2026,
        arxiv="2606.01039",
        formula="A_t = w_f(u) = -f(u) + u f'(u), u = q/p; forward KL: u, reverse KL: log u - 1, JSD: log((1+u)/2)/2",
        section="not placed",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("sampled",),
        on_policy="strict",
        evidence="second_hand",
        defaults="log-ratio clipped to 6 nats either way; advantages never normalised; the divergence is yours to "
        "name, reverse_kl if absent",
        failures="with -f alone forward KL and JSD collapse; reverse KL does not care, as it differs by a constant",
        composition={
            "rollout": {"source": "student"},
            "objective": {"kind": "policy_gradient"},
            "stabilizers": [{"kind": "signal_clip", "max": 6.0}],
        },
    ),
)
