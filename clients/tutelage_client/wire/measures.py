"""What a run's rows of metrics hold, name by name. A test holds the table to the rows of a real run."""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """unit: of the value; meaning: what it is and over what it is taken."""

    unit: str
    meaning: str


# Counted by the coordinator for every row.
COUNTED = {
    "step": Measure("steps", "optimiser steps done; the row of step 0 holds the first evaluation only"),
    "epoch": Measure("attempts", "the attempt at the run that reported this row"),
    "student_tokens": Measure("tokens", "completion tokens learned on since the run began, whoever wrote them"),
    "teacher_tokens": Measure(
        "tokens", "tokens that the teacher computed or wrote since the run began; cached ones cost 0"
    ),
}

# Over the learned tokens of the step, before the optimiser moved the weights.
LEARNING = {
    "loss": Measure(
        "nats per token", "what was minimised; of policy_gradient and constant_penalty the value means nothing"
    ),
    "reverse_kl": Measure(
        "nats per token",
        "KL(p || q): exact with support full, else the sampled mean of log p - log q on the written tokens",
    ),
    "reverse_kl_p10": Measure(
        "nats",
        "one of the values whose mean reverse_kl is, which a tenth of them does not exceed: exact over all learned "
        "tokens of the step, infinite ones left out; of sampled values it may be negative",
    ),
    "reverse_kl_p90": Measure("nats", "the same of nine tenths"),
    "reverse_kl_max": Measure("nats", "the largest of the same"),
    "forward_kl": Measure("nats per token", "KL(q || p), with support full"),
    "log_ratio": Measure(
        "nats per token", "mean of log q - log p of the written tokens, where the teacher scored them"
    ),
    "log_ratio_p10/BIN": Measure(
        "nats",
        "one of the same, which a tenth of them does not exceed, over the tokens at these places of their completions, "
        "counted from 0: BIN is 0-15, 16-63, 64-255, 256-1023 or 1024+; exact over the step, infinite ones left out",
    ),
    "log_ratio_p50/BIN": Measure("nats", "the same of half of them"),
    "log_ratio_p90/BIN": Measure("nats", "the same of nine tenths; wider with the place: the teacher is lost there"),
    "student_entropy": Measure("nats per token", "entropy of the student over the whole vocabulary"),
    "teacher_entropy": Measure(
        "nats per token", "the same of the teacher: with support full, or where the teacher sends its own"
    ),
    "entropy_gap": Measure(
        "nats per token",
        "mean distance of the two entropies; where the teacher does not send its own, that of the two distributions "
        "over the tokens of the support masses and one bucket for all others",
    ),
    "top_k_overlap": Measure(
        "share of tokens",
        "of the teacher's k most probable tokens those among the student's k: k is 16 with support full, that of a "
        "top_k support of the teacher, else diagnostics.top_k. About 0.7 to begin with and rising is healthy",
    ),
    "student_overlap_mass": Measure("probability", "the student's on the tokens of top_k_overlap"),
    "teacher_overlap_mass": Measure("probability", "the teacher's on the same"),
    "student_support_mass": Measure(
        "probability",
        "the student's on the tokens of a top_k support, before any rest; with any other support on the teacher's k "
        "most probable ones, as in top_k_overlap",
    ),
    "teacher_support_mass": Measure("probability", "the teacher's on the same; low: k is too small"),
    "text_gap_forward": Measure(
        "probability",
        "with alpha_by_text and skew_forward_kl: mean over texts of the geometric mean probability of a token under "
        "the teacher, less that under the student",
    ),
    "text_gap_reverse": Measure("probability", "with skew_reverse_kl: the student's less the teacher's"),
    "ratio": Measure(
        "1",
        "mean of p / mu of the written tokens; 1 where the text is the student's own, fresh, at temperature 1",
    ),
    "ratio_max": Measure("1", "largest p / mu of the step"),
    "ratio_ess": Measure(
        "share of tokens", "effective sample size, (sum w)^2 / (n sum w^2) with w = p / mu; 1 where all weigh the same"
    ),
    "ratio_clip_fraction": Measure("share of tokens", "p / mu outside the bounds of ratio_clip"),
    "signal_clip_fraction": Measure("share of tokens", "written tokens whose log q - log p is beyond signal_clip"),
    "infinite_fraction": Measure(
        "share of tokens", "tokens of infinite loss, which add no gradient; signal_clip bounds them"
    ),
    "learned_tokens": Measure("tokens", "tokens that the step learned from"),
    "loss/TEACHER": Measure("nats per token", "the loss over what one of several teachers marked"),
    "reverse_kl/TEACHER": Measure("nats per token", "reverse_kl over the same"),
    "learned_tokens/TEACHER": Measure("tokens", "learned_tokens of the same"),
    "learned_fraction": Measure(
        "share of tokens", "of the tokens that may be learned from, those that had usable scores"
    ),
    "lr": Measure("1", "learning rate of the step"),
    "grad_norm": Measure("1", "norm of the gradient before it was bounded; null where nothing was learned from"),
}

# About the text of the step, and its time.
WRITING = {
    "tokens": Measure("tokens", "completion tokens of the step"),
    "prompt_tokens": Measure("tokens", "those of their prompts, once for each completion"),
    "length": Measure("tokens", "mean length of a completion"),
    "length_max": Measure("tokens", "longest completion"),
    "truncated": Measure("share of rollouts", "completions that ended at max_new_tokens"),
    "repetition": Measure(
        "share of 4-grams",
        "runs of 4 tokens that stood in the same completion before; null: no completion has 4 tokens",
    ),
    "lag": Measure("policy versions", "mean between writing and learning; 0 is on-policy, and data has none"),
    "lag_max": Measure("policy versions", "the largest; `rollout.max_lag` bounds it"),
    "rollouts_at_lag/LAG": Measure(
        "rollouts",
        "of the student, whose turn came in this step when they were LAG versions old, the stale ones too: LAG is 0 to "
        "64, or 65+; a lag that none has is absent",
    ),
    "rollouts/submitted": Measure("rollouts", "written, or read, since the run began: the sum of the six below"),
    "rollouts/trained": Measure("rollouts", "of these: learned from"),
    "rollouts/stale": Measure("rollouts", "of these: older than `rollout.max_lag` when their turn came, left out"),
    "rollouts/dead_lettered": Measure("rollouts", "of these: left out because a teacher gave up on them"),
    "rollouts/skipped": Measure("rollouts", 'of these: left out because their teacher was lost, with on_loss = "skip"'),
    "rollouts/dropped": Measure(
        "rollouts", "of these: left out for another reason, such as a reward that is not valid"
    ),
    "rollouts/queued": Measure("rollouts", "of these: under way now, for steps to come"),
    "dropped": Measure(
        "rollouts", "left out since the run began, because the teacher gave them up, refused or cut them"
    ),
    "failed_over": Measure(
        "rollouts", "of the step, marked by the stand-in of their teacher; with failover_to, where the teacher is lost"
    ),
    "teacher_usd": Measure(
        "USD", "what teachers cost since the run began, by the prices that they told; absent where none has any"
    ),
    "teacher_tokens/TEACHER": Measure("tokens", "one of several teachers' share of teacher_tokens"),
    "student_share": Measure(
        "share of steps", "with source adaptive: phi, of those that learn from the student's text rather than from data"
    ),
    "replayed": Measure("share of rollouts", "with source adaptive: those of the step that an older student wrote"),
    "buffered": Measure("rollouts", "with source adaptive: those of the student that later steps may learn from again"),
    "reward": Measure("reward", "mean over the rollouts of the step that have a valid one; absent without [reward]"),
    "reward_std": Measure("reward", "deviation of the same over the step"),
    "equal_groups": Measure("share of prompts", "prompts whose rewards are all equal, from which nothing is learned"),
    "unrewarded": Measure("rollouts", "left out since the run began, because their reward was not valid"),
    "seconds": Measure("s", "wall-clock time of the step, without evaluation and checkpoint"),
    "eval_s": Measure("s", "beside these: evaluation of the step; 0: there was none"),
    "checkpoint_s": Measure(
        "s", "beside these: saving the run, waits for a full disk included, since the row before; the last is in no row"
    ),
    "checkpoint_failures": Measure("tries", "to save the run since the row before that the disk refused"),
    "learn_s": Measure("s", "from the last score to the optimiser step, without what was learned before it"),
    "wait_s": Measure("s", "from the last rollout to the last score; null: nobody asked"),
    "overlap_s": Measure(
        "s",
        "how long before the last rollout ended the first score was there; negative: no overlap; null: nobody asked",
    ),
}

# In the rows of steps that evaluated. A tag is what the lines of `data.eval` carry.
EVALUATION = {
    "accuracy": Measure("mean reward", "of all samples of all held-out prompts, by the spec's grader"),
    "accuracy/TAG": Measure("mean reward", "the same over the prompts of one tag"),
    "eval_length": Measure("tokens", "mean length of an answer"),
    "eval_truncated": Measure("share of samples", "answers that ended at max_new_tokens"),
    "eval_loss": Measure(
        "nats per token", "mean of -log p over the completions of held-out lines; absent where no line has one"
    ),
    "eval_ungraded": Measure("share of samples", "answers that the machine left ungraded, which are in no accuracy"),
}

MEASURES = COUNTED | LEARNING | WRITING | EVALUATION
