"""Rows of the board of runs: what is learned, from which text, and what became of that."""

from __future__ import annotations

from docs.generate.boards.model import Limit, Panel, Query, Row
from docs.generate.boards.selecting import of_run, rate_of_run

NATS = "suffix:nats"
LOG_RATIO = "tutelage_train_log_ratio_nats"


def learned(
    title: str, says: str, metric: str, unit: str = "none", *, least: float | None = None, most: float | None = None
) -> Panel:
    """A panel of one number of the newest row."""
    return Panel(title, says, (Query(of_run(metric), "{{run_id}}"),), unit, least=least, most=most)


LEARNING = Row(
    "What is learned",
    (
        Panel(
            "Reverse KL",
            "The mean should fall; KlRises fires at half as much again as two hours before. The others: of its tokens.",
            (Query(of_run("tutelage_train_reverse_kl_nats", "stat"), "{{run_id}} {{stat}}"),),
            NATS,
        ),
        Panel(
            "Log-ratio of teacher and student",
            "The mean, and of the first 16 tokens what a tenth, half and nine tenths are below. Closes in on 0.",
            (
                Query(of_run(LOG_RATIO, "stat", place="all"), "{{run_id}} {{stat}}"),
                Query(of_run(LOG_RATIO, "stat", place="0-15"), "{{run_id}} {{stat}}"),
            ),
            NATS,
        ),
        Panel(
            "Entropy",
            "Nats a token. A student far below its teacher has collapsed.",
            (Query(of_run("tutelage_train_entropy_nats", "model"), "{{run_id}} {{model}}"),),
            NATS,
            least=0,
        ),
        learned(
            "Loss", "What was minimised; of a policy gradient the value means nothing.", "tutelage_train_loss", NATS
        ),
        learned("Accuracy", "Of the newest evaluation.", "tutelage_train_accuracy", "percentunit", least=0, most=1),
        learned("Reward", "Mean over the step's rollouts that have one.", "tutelage_train_reward"),
        learned("Gradient norm", "Before it was bounded.", "tutelage_train_grad_norm", least=0),
        Panel(
            "Steps that learned nothing finite",
            "Loss or gradient was no number, or nothing was learned from. NonFiniteSteps fires at the first.",
            (Query(of_run("tutelage_run_nonfinite_steps_total"), "{{run_id}}"),),
            limits=(Limit(1, "red"),),
            least=0,
        ),
    ),
)
TEXT = Row(
    "The text, and what became of it",
    (
        learned("Length of a completion", "Mean tokens.", "tutelage_train_length_tokens", "short", least=0),
        learned(
            "Cut off",
            "Share of completions that ended at max_new_tokens.",
            "tutelage_train_truncated_ratio",
            "percentunit",
            least=0,
            most=1,
        ),
        learned(
            "Tokens with usable scores",
            "Below 1 a teacher leaves something out.",
            "tutelage_train_learned_ratio",
            "percentunit",
            least=0,
            most=1,
        ),
        learned(
            "Overlap of the likely tokens",
            "About 0.7 to begin with and rising is healthy.",
            "tutelage_train_top_k_overlap_ratio",
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Probability that the support holds",
            "Low for the teacher: k is too small.",
            (Query(of_run("tutelage_train_support_mass_ratio", "model"), "{{run_id}} {{model}}"),),
            "percentunit",
            least=0,
            most=1,
        ),
        Panel(
            "Rollouts by what became of them",
            "A second. All but trained were left out.",
            (Query(rate_of_run("tutelage_run_rollouts_total", "outcome"), "{{run_id}} {{outcome}}"),),
            stacked=True,
            least=0,
        ),
        Panel(
            "Share of stale rollouts",
            "Older than `rollout.max_lag` when their turn came, of those submitted. StaleRollouts fires at a fifth.",
            (
                Query(
                    f"{rate_of_run('tutelage_run_rollouts_total', outcome='stale')}"
                    f" / {rate_of_run('tutelage_run_rollouts_submitted_total')}",
                    "{{run_id}}",
                ),
            ),
            "percentunit",
            limits=(Limit(0.2, "orange"),),
            least=0,
            most=1,
        ),
        Panel(
            "Rollouts under way",
            "Written or asked about now, for steps to come.",
            (Query(of_run("tutelage_run_rollouts_queued"), "{{run_id}}"),),
            least=0,
        ),
    ),
)
