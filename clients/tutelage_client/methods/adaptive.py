"""Methods whose divergence, target or direction follows the gap between the two models."""

from __future__ import annotations

from tutelage_client.methods.method import Method

ADAPTIVE = (
    Method(
        name="akl",
        title="Adaptive KL (AKL)",
        year=2024,
        arxiv="2404.02657",
        formula="(g_h KL(q || p) + g_t KL(p || q)) / (g_h + g_t), g = sum |q - p| over head or tail, detached",
        section="4.2 adaptive divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="adjacent",
        evidence="primary",
        defaults="code: head = teacher's tokens up to a mass of 0.5, the first always",
        failures="its gain is early: with capacity and steps enough both directions of KL come to the same optimum "
        "(paper)",
        composition={"objective": {"kind": "divergence", "divergence": "akl", "head_mass": 0.5}},
        differs="published on fixed text; whose text is learned from is the spec's choice",
    ),
    Method(
        name="todi",
        title="Token-wise distillation (ToDi)",
        year=2025,
        arxiv="2505.16297",
        formula="sum_v a_v q log(q/p) + (1-a_v) p log(p/q), a_v = sg sigmoid(b log(q/p))",
        section="4.2 adaptive divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="adjacent",
        evidence="primary",
        defaults="b 1 (unchecked)",
        failures="none published that we found; by its formula: a large b is a switch at q = p, and as the weights "
        "are detached the value may rise while it is descended",
        composition={"objective": {"kind": "divergence", "divergence": "todi", "slope": 1.0}},
        differs="published on fixed text; whose text is learned from is the spec's choice",
    ),
    Method(
        name="amid",
        title="AMiD, the alpha-mixture assistant",
        year=2025,
        arxiv="2510.15982",
        formula="KL(q || r), log r = 2/(1-al) logaddexp(log lam + (1-al)/2 log q, log(1-lam) + (1-al)/2 log p) + const",
        section="not placed",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="adjacent",
        evidence="primary",
        defaults="code: al 0.5, lam 0.5",
        failures="none published that we found; by its formula: with lam near 1 the assistant holds little of the "
        "student, whose gradient fades",
        composition={
            "objective": {
                "kind": "divergence",
                "divergence": "forward_kl",
                "target": {"kind": "mixture", "alpha": 0.5, "weight": 0.5, "stands_for": "student"},
            },
        },
        differs="published on fixed text; whose text is learned from is the spec's choice",
    ),
    Method(
        name="taid",
        title="Temporally adaptive interpolated distillation (TAID)",
        year=2025,
        arxiv="2501.16937",
        formula="KL(r || p), r = softmax((1-t) sg(z_p) + t z_q), t rises from 0.4 to 1 with the loss",
        section="5.1 white-box teacher",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="adjacent",
        evidence="primary",
        defaults="code: t 0.4 to 1, momentum 0.99, step 5e-4 sigmoid(m)(1-t), never below the linear schedule",
        failures="a share that rises too fast for the student leaves it the capacity gap that the clock is to bridge",
        composition={
            "objective": {
                "kind": "divergence",
                "divergence": "forward_kl",
                "target": {
                    "kind": "mixture",
                    "alpha": 1.0,
                    "weight": 0.4,
                    "final_weight": 1.0,
                    "over_steps": 1000,
                    "adaptive": True,
                },
            },
        },
        differs="over_steps is yours to set, the paper's is the length of the run; whose text is learned from is the "
        "spec's choice",
    ),
    Method(
        name="veto",
        title="Veto, a geometric bridge",
        year=2026,
        arxiv="2601.07155",
        formula="divergence to a bridge proportional to q^(..) p^beta, the student in it detached",
        section="4.2 adaptive divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("full",),
        on_policy="strict",
        evidence="second_hand",
        defaults="the schedule of the exponents was not captured",
        failures="a bridge that stays near the student pulls weakly; one at the teacher is plain reverse KL",
        composition={
            "rollout": {"source": "student"},
            "objective": {
                "kind": "divergence",
                "divergence": "reverse_kl",
                "target": {"kind": "mixture", "alpha": 1.0, "weight": 0.5},
            },
        },
        differs="the bridge is q^w p^(1-w), normalised; w is 0.5 or moves linearly, where the paper's schedule was not "
        "seen",
    ),
    Method(
        name="eopd",
        title="Entropy-aware OPD (EOPD)",
        year=2026,
        arxiv="2603.07079",
        formula="clipped k1 term + I[H(q) > tau] FKL over the teacher's top-16, teacher renormalised, student not",
        section="4.2 adaptive divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("sampled", "top_k", "entropy"),
        on_policy="strict",
        evidence="primary",
        defaults="paper: k 16, batch 128, mini-batch 32; released code, by its readers: tau 0.8 nats, forward KL "
        "weighs 1",
        failures="it answers the loss of high-entropy tokens under plain reverse KL",
        composition={
            "rollout": {"source": "student", "temperature": 1.0},
            "objective": {
                "kind": "sum",
                "terms": [
                    {"objective": {"kind": "policy_gradient"}},
                    {
                        "objective": {
                            "kind": "divergence",
                            "divergence": "forward_kl",
                            "support": {"kind": "teacher_top_k", "k": 16, "rest": "truncate"},
                        },
                        "where": {"teacher_entropy_above": 0.8},
                    },
                ],
            },
        },
        differs="one update for each text, so that PPO's clip has nothing to clip; the teacher is renormalised on its "
        "top-16, as the paper has it, where readers of the released code find it cut alone",
    ),
    Method(
        name="aopd",
        title="AOPD, asymmetric OPD",
        year=2026,
        arxiv="2605.06387",
        formula="A_t > 0: policy gradient on y_t; A_t <= 0: FKL to the teacher's top-k, no negative advantage",
        section="4.2 adaptive divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("sampled", "top_k"),
        on_policy="strict",
        evidence="second_hand",
        defaults="both branches weigh 1 (its equation 10, by readers)",
        failures="it answers variance and vanishing gradients of negative advantages",
        composition={
            "rollout": {"source": "student", "temperature": 1.0},
            "objective": {
                "kind": "sum",
                "terms": [
                    {"objective": {"kind": "policy_gradient"}, "where": {"log_ratio_above": 0.0}},
                    {
                        "objective": {
                            "kind": "divergence",
                            "divergence": "forward_kl",
                            "support": {"kind": "teacher_top_k", "k": 16, "rest": "truncate"},
                        },
                        "where": {"log_ratio_up_to": 0.0},
                    },
                ],
            },
        },
        differs="k 16 and the teacher's renormalisation on its set are ours, the paper's were not captured; the mean "
        "is over all tokens of a step, where the paper takes that of each text first",
    ),
    Method(
        name="reopold",
        title="REOPOLD, relaxed OPD",
        year=2026,
        arxiv="2603.11137",
        formula="A_t = max(sg R_t, log(lam/(1-lam))); first drop tokens below it, later keep high-entropy ones",
        section="4.2 adaptive divergence",
        feedback="logit",
        access="white_box",
        granularity="token",
        needs=("sampled",),
        on_policy="strict",
        evidence="primary",
        defaults="lam 0.1, a share of 0.2 and the switch at step 50 are ours, the paper's were not captured",
        failures="it answers the heavy negative tail of log q - log p",
        composition={
            "rollout": {"source": "student", "temperature": 1.0},
            "objective": {
                "kind": "sum",
                "terms": [
                    {
                        "objective": {"kind": "policy_gradient", "credit": {"kind": "token", "floor": -2.2}},
                        "where": {"log_ratio_above": -2.2},
                        "until_step": 50,
                    },
                    {
                        "objective": {"kind": "policy_gradient", "credit": {"kind": "token", "floor": -2.2}},
                        "where": {"student_entropy_top": 0.2},
                        "weight": 5.0,
                        "from_step": 50,
                    },
                ],
            },
        },
        differs="the share is of each text's tokens; the mean over those kept is a weight of 1 / share on the term, "
        "and in the first phase, which drops few, it is over all; floor (lam 0.1), share and step of the switch "
        "are ours",
    ),
)
