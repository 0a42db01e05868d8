"""Which settings do not go together, each fine alone; refused with the field that its author would change."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage_client.spec.models import Reference, TeacherRef
from tutelage_client.spec.objectives import (
    DivergenceObjective,
    PolicyGradientObjective,
    PreferenceObjective,
    RewardObjective,
    SimpleObjective,
)
from tutelage_client.spec.rewards import RewardSpec, signals_heard
from tutelage_client.spec.sections import Budget, Data, RolloutSpec
from tutelage_client.spec.stabilizers import EntropyGate, RatioClip, Stabilizer
from tutelage_client.spec.sums import Objective, Where, has_extrapolation, parts
from tutelage_client.wire.refusal import refused
from tutelage_client.wire.rewarding import needs_model

# Which objective can learn from whose text.
SOURCES: dict[str, tuple[str, ...]] = {
    "divergence": ("student", "teacher", "data", "mix", "paired", "teacher_mixed", "adaptive", "pushed"),
    "policy_gradient": ("student", "teacher_mixed", "pushed"),
    "preference": ("paired",),
    "supervised": ("teacher", "data", "pushed"),
    "constant_penalty": ("student", "pushed"),
    "reward": ("student", "paired", "pushed"),
}
# The sources of text of the student and of others.
MIXED = ("mix", "paired", "adaptive", "pushed")


def check_source(rollout: RolloutSpec, objective: Objective) -> None:
    """The objective, or each term of a sum, can learn from this text."""
    for field, part, where in parts(objective):
        _check_text(rollout, field, part, where)


def _check_text(rollout: RolloutSpec, field: str, part: SimpleObjective | RewardObjective, where: Where) -> None:
    """A term that is restricted to one text needs no more than that; by `other` text is meant that of data.

    An adaptive run's student text may be old, which what is unbiased on fresh text alone does not take.
    """
    source = rollout.source
    student = "adaptive" if source == "adaptive" else "student"
    text = {"student": student, "other": "data"}[where.text] if where.text and source in MIXED else source
    if text not in SOURCES[part.kind]:
        able = ", ".join(SOURCES[part.kind])
        sentence = f"{source!r} does not go with {field}.kind = {part.kind!r}; it can learn from {able}"
        restrictable = field != "objective" and source in MIXED and where.text is None
        remedy = ", or restrict the term by where.text" if restrictable else ""
        raise refused("rollout.source", sentence + remedy)
    if isinstance(part, PreferenceObjective) and rollout.samples_per_prompt != 1:
        sentence = f"{rollout.samples_per_prompt} texts of the student to the one of the data make no pair; give 1"
        raise refused("rollout.samples_per_prompt", sentence)
    sampled = isinstance(part, DivergenceObjective) and part.support.kind == "sampled"
    if sampled and text not in ("student", "pushed"):
        sentence = f"'sampled' is unbiased on student text only, and rollout.source is {source!r}; take another kind"
        raise refused(f"{field}.support", sentence)


def check_teachers(
    teachers: Sequence[TeacherRef], rollout: RolloutSpec, objective: Objective, reward: RewardSpec | None
) -> None:
    """A teacher is named exactly if one is asked."""
    judges = reward is not None and needs_model(reward.by)
    needed = bool(signals_heard(objective, reward)) or judges or rollout.source == "teacher"
    if needed and not teachers:
        raise refused(
            "teachers",
            "the objective, the reward or rollout.source needs a teacher; add [[teachers]] with a known name",
        )
    if teachers and not needed:
        raise refused(
            "teachers", "neither the objective, the reward nor rollout.source asks a teacher; remove [[teachers]]"
        )


def check_data(data: Data, rollout: RolloutSpec) -> None:
    """Prompts are named exactly if they are read."""
    if rollout.source != "pushed" and data.train is None:
        raise refused("data.train", f"rollout.source = {rollout.source!r} needs a JSON-lines file of prompts; name one")
    if rollout.source == "adaptive" and data.eval is None:
        sentence = "rollout.source = 'adaptive' follows the loss on held-out completions"
        raise refused("data.eval", f"{sentence}; name a JSON-lines file whose lines have them")
    if rollout.source == "pushed" and data.train is not None:
        raise refused("data.train", 'not read with rollout.source = "pushed"; remove it')


def check_reference(reference: Reference | None, objective: Objective, stabilizers: Sequence[Stabilizer]) -> None:
    """A model is named as reference only where something may look at it."""
    looked_at = has_extrapolation(objective) or any(stabilizer.kind == "reference_kl" for stabilizer in stabilizers)
    if reference is not None and not looked_at:
        sentence = "nothing looks at a reference here; remove it, or give a target of kind extrapolation"
        raise refused("reference", f"{sentence} or the stabilizer reference_kl")


def check_stabilizers(
    stabilizers: Sequence[Stabilizer], rollout: RolloutSpec, objective: Objective, reward: RewardSpec | None
) -> None:
    """Each stabilizer is there once and has what it works on."""
    hears = bool(signals_heard(objective, reward))
    _check_weights(stabilizers, rollout, objective)
    in_pairs = any(isinstance(part, PreferenceObjective) for _, part, _ in parts(objective))
    kinds = [stabilizer.kind for stabilizer in stabilizers]
    for index, kind in enumerate(kinds):
        field = f"stabilizers.{index}"
        if kind in kinds[:index]:
            raise refused(field, f"{kind!r} is there more than once; keep one")
        if kind in ("signal_clip", "ratio_clip", "freshness", "entropy_gate") and in_pairs:
            raise refused(field, f"{kind!r} is of tokens, and a preference compares whole texts; remove it")
        if kind == "signal_clip" and not hears:
            raise refused(
                field, f"{kind!r} needs a teacher signal, objective.kind = {objective.kind!r} has none; remove it"
            )
        if isinstance(stabilizers[index], EntropyGate) and not hears:
            sentence = f"{kind!r} needs an objective that hears a teacher, this is {objective.kind!r}; remove it"
            raise refused(field, sentence)
        if kind == "freshness" and not rollout.max_lag and rollout.source not in ("adaptive", "pushed"):
            raise refused(field, f"{kind!r} weighs older text, and here all is fresh; remove it or set rollout.max_lag")
        if kind == "ratio_clip" and objective.kind == "reward":
            raise refused(field, "reward.clip_below and reward.clip_above bound the ratio of a reward; remove it")
        if kind == "ratio_clip" and rollout.source not in ("student", "teacher_mixed", *MIXED):
            raise refused(field, f"{kind!r} needs student text, rollout.source is {rollout.source!r}; remove it")


def _check_weights(stabilizers: Sequence[Stabilizer], rollout: RolloutSpec, objective: Objective) -> None:
    """A policy gradient on text that a teacher wrote in part has the weights p / mu, at most 1 / (1 - alpha)."""
    estimates = any(isinstance(part, PolicyGradientObjective) for _, part, _ in parts(objective))
    if rollout.teacher_share is None or not estimates:
        return
    most = 1 / (1 - rollout.teacher_share)
    if not any(isinstance(each, RatioClip) and each.min == 0 and each.max >= most * (1 - 1e-9) for each in stabilizers):
        sentence = "a policy gradient on text that the teacher wrote in part needs its importance weights p/mu"
        raise refused("stabilizers", f"{sentence}; add ratio_clip with max {most:.4g} or more, and min 0")


# Whose text can be written, or fetched, steps before it is learned from.
AHEAD = ("student", "teacher", "data", "mix", "paired")


def check_lag(rollout: RolloutSpec) -> None:
    """What is written ahead follows from a step's number, and stays what it is until it is learned from."""
    if rollout.max_lag and rollout.source not in AHEAD:
        sentence = f"{rollout.max_lag} does not go with rollout.source = {rollout.source!r}; set 0, or a source"
        raise refused("rollout.max_lag", f"{sentence} that is written ahead: {', '.join(AHEAD)}")


# The sources of text that the student of one version samples alone.
SAMPLED = ("student", "mix", "paired")


def check_sampler(rollout: RolloutSpec) -> None:
    """Samplers write whole texts of one snapshot, and nothing else."""
    if rollout.sampler is not None and rollout.source not in SAMPLED:
        sentence = f"{rollout.sampler!r} has no text to write with rollout.source = {rollout.source!r}; remove it, or"
        raise refused("rollout.sampler", f"{sentence} take a source that samples whole texts: {', '.join(SAMPLED)}")


def uncorrected(stabilizers: Sequence[Stabilizer], objective: Objective) -> bool:
    """Whether a term is unbiased on the student's own text alone, and nothing weighs that of an older student."""
    own = any(
        isinstance(part, PolicyGradientObjective)
        or (isinstance(part, DivergenceObjective) and part.support.kind == "sampled")
        for _, part, _ in parts(objective)
    )
    return own and not any(isinstance(each, RatioClip) for each in stabilizers)


def check_losses(teachers: Sequence[TeacherRef], rollout: RolloutSpec) -> None:
    """What becomes of a lost teacher's lines can be done with this text."""
    for index, teacher in enumerate(teachers):
        if teacher.on_loss in ("failover", "skip") and rollout.source in ("teacher", "teacher_mixed"):
            sentence = f"{teacher.on_loss!r} does not go with rollout.source = {rollout.source!r}, whose text is this"
            raise refused(f"teachers.{index}.on_loss", f'{sentence} teacher\'s own; take "pause" or "fail"')


def check_deterministic(
    rollout: RolloutSpec, reward: RewardSpec | None, budget: Budget, teachers: Sequence[TeacherRef]
) -> None:
    """A run that repeats bit for bit takes nothing from clocks, from other people or from judges that write."""
    remedy = "or set deterministic = false"
    for index, teacher in enumerate(teachers):
        if teacher.on_loss in ("failover", "skip"):
            sentence = f"what {teacher.on_loss!r} learns from is a matter of time; take pause or fail, {remedy}"
            raise refused(f"teachers.{index}.on_loss", sentence)
    if rollout.source == "pushed":
        raise refused("rollout.source", f"what others push is not in the spec; take another, {remedy}")
    if rollout.max_lag:
        raise refused("rollout.max_lag", f"which version writes a step ahead is a matter of time; set 0, {remedy}")
    if rollout.sampler is not None:
        raise refused("rollout.sampler", f"which texts are sampled together is a matter of time; remove it, {remedy}")
    if budget.wall_clock_s is not None:
        raise refused("budget.wall_clock_s", f"a clock does not end two runs at the same step; remove it, {remedy}")
    if reward is not None and needs_model(reward.by) and reward.by.kind != "reward_model":
        raise refused("reward.by", f"{reward.by.kind!r} does not judge twice alike; take another, {remedy}")
