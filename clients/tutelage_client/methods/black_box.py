"""Methods for a teacher that returns text alone."""

from __future__ import annotations

from tutelage_client.methods.method import Method

BLACK_BOX = (
    Method(
        name="lion",
        title="Lion",
        year=2023,
        arxiv="2305.12870",
        formula="loop: imitate; let the teacher find weak instructions; let it write harder ones",
        section="5.2 black-box teacher",
        feedback="outcome",
        access="black_box",
        granularity="sequence",
        needs=("text",),
        on_policy="adjacent",
        evidence="second_hand",
        out_of_scope="it writes new prompts between runs; each of its runs is `seqkd`",
    ),
    Method(
        name="gad",
        title="GAD, generative adversarial distillation",
        year=2025,
        arxiv="2511.10643",
        formula="max_G min_D E[-log sigmoid(D(y_T) - D(G(x)))]; reward D(y) with GRPO",
        section="5.2 black-box teacher",
        feedback="outcome",
        access="black_box",
        granularity="sequence",
        needs=("text",),
        on_policy="strict",
        evidence="second_hand",
        defaults="warm-up of both, then in turns",
        failures="a frozen discriminator is hacked",
        out_of_scope="its discriminator learns against the student in each step, and a teacher here is one frozen "
        "model, whose change ends the run; a reward model in its place is its step with the discriminator "
        "held, `ovd` has a judge in its place",
    ),
    Method(
        name="ovd",
        title="OVD, verbal scores",
        year=2026,
        arxiv="2601.21968",
        formula="reward: the teacher's verbal score 0 to 9 of trajectories or steps",
        section="5.2 black-box teacher",
        feedback="outcome",
        access="black_box",
        granularity="sequence",
        needs=("text",),
        on_policy="strict",
        evidence="second_hand",
        defaults="paper: scores 0 to 9; the rubric, 8 samples a prompt and the KL of 0.01 are ours",
        failures="it is as good as the teacher's judgement (notes); by its formula a group of equal scores teaches "
        "nothing",
        composition={
            "rollout": {"source": "student", "temperature": 1.0, "samples_per_prompt": 8},
            "objective": {"kind": "reward"},
            "reward": {
                "by": {"kind": "rubric", "rubric": "The completion answers the prompt rightly and completely."},
                "advantage": "group_normalised",
            },
            "stabilizers": [{"kind": "reference_kl", "coef": 0.01}],
        },
        differs="a score of the whole text, learned from as in GRPO with a KL to the start; the rubric is yours",
    ),
    Method(
        name="ropd",
        title="ROPD, rubrics",
        year=2026,
        arxiv="2605.07396",
        formula="reward: rubric-based scores of meaning in place of logits",
        section="5.2 black-box teacher",
        feedback="outcome",
        access="black_box",
        granularity="sequence",
        needs=("text",),
        on_policy="strict",
        evidence="second_hand",
        defaults="paper: rubrics of each prompt, with a weight for each criterion; the one here, 8 samples a prompt "
        "and the KL of 0.01 are ours",
        failures="it is as good as the rubrics that the teacher draws (notes); by its formula a group of equal "
        "scores teaches nothing",
        composition={
            "rollout": {"source": "student", "temperature": 1.0, "samples_per_prompt": 8},
            "objective": {"kind": "reward"},
            "reward": {
                "by": {
                    "kind": "rubric",
                    "rubric": "The completion answers the prompt rightly, completely and clearly.",
                },
                "advantage": "group_normalised",
            },
            "stabilizers": [{"kind": "reference_kl", "coef": 0.01}],
        },
        differs="one rubric for all prompts, which is yours, where the paper's teacher draws one for each; a score of "
        "the whole text, learned from as in GRPO with a KL to the start",
    ),
    Method(
        name="orpo-distill",
        title="ORPO-Distill",
        year=2025,
        arxiv="2509.25100",
        formula="odds-ratio preference: the teacher's trace preferred, the student's rejected",
        section="5.2 black-box teacher",
        feedback="outcome",
        access="black_box",
        granularity="sequence",
        needs=("text",),
        on_policy="partial",
        evidence="second_hand",
        failures="pure on-policy or pure off-policy negatives do worse than mixed ones",
        missing="the odds ratio as a preference, which no teacher scores; `dpkd` prefers by log p/q",
    ),
)
