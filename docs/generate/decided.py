"""Where papers, their code and their readers contradict each other: the question, what stands here, and why."""

from __future__ import annotations

DECIDED = (
    (
        "EOPD: is forward KL added behind the entropy gate (paper), or mixed convexly (survey)?",
        "added",
        "The paper is the primary source. A convex mixture would also weaken the sampled term where the gate is open, "
        "which is another method. The preset `eopd` adds.",
    ),
    (
        "ToDi: is forward KL heavy where the student has too little, or the other way round (survey, version 1)?",
        "where the student has too little: a = sigmoid(log(q/p))",
        "The paper's argument is on gradients: forward KL raises p where q exceeds it, reverse KL lowers it where p "
        "exceeds q. The reverse would weight each term where it has little to say. `todi` is built this way.",
    ),
    (
        "TAID: are logits interpolated (code), or probabilities (survey)?",
        "logits",
        "The published results come from the code. A mixture of probabilities is another target and would bear another "
        "name. A `mixture` with alpha 1 interpolates logits; `taid` is built on it.",
    ),
    (
        "DistiLLM: is fresh text learned from at once (released code), or put into the buffer and drawn from there "
        "(its Algorithm 1, as readers give it); and against which loss does phi rise?",
        "at once; against the loss of the last rise, which moves only then",
        "The published results come from the code. It also writes anew below phi until the buffer is full, so nothing "
        "is drawn from a few texts again and again. A loss compared with the evaluation before it would let phi rest "
        "while the loss creeps up by less than the tolerance at a time. `distillm` is built this way.",
    ),
    (
        "MiniLLM: do importance weights stand on both terms of the gradient (paper), or on the sampled one alone "
        "(code)?",
        "on both",
        "Both terms are expectations over states of the mixed text. The weight is the token's own p/mu, as paper and "
        "code have it, not the product over the text, which would be exact and of high variance; so some bias stays. "
        "Since mu is at least (1 - alpha) p it is at most 1 / (1 - alpha). `minillm` is built this way.",
    ),
    (
        "DistiLLM-2: one skew for all samples (released settings), or one of each (paper, and code that those settings "
        "leave off); and what is the mean gap m0 that a sample's is held to?",
        "one of each; m0 is the mean over the texts of the run's first step",
        "The paper's method adapts it. In the code m0 is the mean up to the first log line and stays; here that is one "
        "step, whatever the size of micro-batches. That step itself has a0. m is measured over the tokens that are "
        "learned from. `distillm-2` is built this way; `alpha_by_text = false` in both terms gives "
        "the released settings.",
    ),
    (
        "DPKD: is the mean over pairs (paper), or over the tokens of all pairs?",
        "over tokens",
        "A step divides every loss by the number of its learned tokens, which is what lets terms of a sum stand beside "
        "each other and a batch be cut anywhere. The loss of a pair is the paper's; a pair of long texts weighs more, "
        "as a long text does in any other objective here. Of texts of one length the two are the same.",
    ),
    (
        "RLAD: which end of alpha is GRPO?",
        "alpha = 1",
        "The ratio is p / (p_old^a q^(1-a)); at a = 1 it is p / p_old. The text that says 0 contradicts the formula.",
    ),
    (
        "G-OPD: is the printed A_t an advantage or a cost?",
        "a cost; the advantage is its negative, (log q - log p) + (lambda-1)(log q - log ref)",
        "Only this sign climbs the objective, as the derivation above shows; the released code negates it, too. "
        "`exopd` is built this way.",
    ),
    (
        "OPSD: forward KL with a clip at each entry (paper), or JSD with beta 0.5 (released scripts)?",
        "the paper's loss bears the name; the scripts' settings are listed as such",
        "A name means what its paper defines. The scripts' loss is `jsd` once a teacher can read its own prompt. Not "
        "built yet.",
    ),
    (
        "Revisiting OPD: is `full_reverse` KL(teacher || student) (README), or KL(student || teacher)?",
        "KL(student || teacher), `reverse_kl` here",
        "Paper and comments in the code agree against the README. Here a divergence is named by its formula alone.",
    ),
    (
        "SCOPE: which sign has the student's perplexity in the weight?",
        "PPL_S^(1/tau), as in the paper",
        "The sign of the released script was reported by readers to be reversed; it was not run here. The paper's says "
        "why: right answers that the student finds hard are worth more. Not built yet.",
    ),
    (
        "Top-p rollouts, or strictly temperature 1 and top-p 1?",
        "both, for different losses",
        "`policy_gradient` and support `sampled` estimate an expectation over p, which other sampling biases. A direct "
        "top-k loss is taken at given states and has no such expectation; there top-p 0.9 helped (`revisiting-opd`).",
    ),
    (
        "One sampled token, or the full vocabulary?",
        "both are built; full is the default",
        "Published reports disagree: DeepSeek-V4 and Revisiting OPD against Kimi K3 and Rethinking OPD. Exact is the "
        "default as hidden states make it cheap here, and its variance is the lowest.",
    ),
    (
        "Qwen3: an ensemble of teachers (survey, version 1)?",
        "not claimed here",
        "Other readers do not find it, and no equation is published. So Qwen3 is no preset.",
    ),
    (
        "Does self-distillation like OPSD saturate as SPIN does?",
        "saturation is listed for `spin` alone",
        "SPIN's opponent is its previous iteration and vanishes as the two agree. OPSD's teacher is fixed and reads "
        "more than the student; its authors report going on improving. The survey's claim is not tested here.",
    ),
    (
        "Which methods are on-policy?",
        "each is tagged strict, partial or adjacent",
        "Lightning OPD is on-policy at its start only; DistiLLM, DistiLLM-2, SKD, AdaSwitch and PACED mix or age. One "
        "word for all would hide that.",
    ),
)
