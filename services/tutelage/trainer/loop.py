"""The main loop of a run. One step: the student writes, the teacher marks every token, the student learns."""

from __future__ import annotations

import asyncio
import logging
import time

from tutelage.about import about
from tutelage.core.clock import advanced
from tutelage.tracing import span
from tutelage.trainer import keeping, writing
from tutelage.trainer.crashes import CrashPoint
from tutelage.trainer.evaluate import evaluate
from tutelage.trainer.exits import TeacherFailed
from tutelage.trainer.fates import Ended, by_age, failed_over
from tutelage.trainer.held_out import looked_at
from tutelage.trainer.inspecting import NOTHING, Shown, chosen
from tutelage.trainer.learning import Learning, Metrics
from tutelage.trainer.marking import Scored, Timeline
from tutelage.trainer.replay import Share
from tutelage.trainer.rewarding import with_advantages
from tutelage.trainer.run import Run
from tutelage_client.history import LearnedStep
from tutelage_client.spec import uncorrected
from tutelage_client.wire import Prices

log = logging.getLogger(__name__)
UNCORRECTED = (
    "the objective takes text for the student's own, which is older with rollout.max_lag above 0; "
    "add a ratio_clip to weight it by p/mu"
)
FREE = Prices()


async def train(run: Run) -> None:
    """Steps until the spec's number of steps or its budget is reached; resumes at `run.student.step`."""
    if run.student.step == 0:
        metrics, held_out = await evaluated(run)
        await report(run, metrics, held_out=held_out)
        if run.spec.rollout.max_lag and uncorrected(run.spec.stabilizers, run.spec.objective):
            await run.session.event("log", UNCORRECTED, "warning")
    ended = ended_by(run)
    async with run.ahead:
        while ended is None:
            with about(step=run.student.step + 1, policy_version=run.student.step), span("step", {}):
                ended = await step(run)
    await run.session.while_wanted(taken_back(run))
    if ended != "optim.steps":
        await run.session.event("log", f"the run ends at step {run.student.step}: {ended} is spent", "warning")
    await keeping.insist(run, final=True)


async def taken_back(run: Run) -> None:
    """Nothing of a run that has ended stays in queues, whoever must be waited for."""
    await run.ahead.give_up()
    if run.samplers is not None:
        await run.samplers.give_up()


async def step(run: Run) -> str | None:
    """Write, mark, learn, and tell of it. Returns the limit that ends the run with this step."""
    run.session.check()
    begun_s = time.monotonic()
    objective = run.objective.at(run.student.step, run.ledger.clock.share, run.ledger.first_gaps)
    async with Learning(run.student, run.spec, objective, run.passing) as learning:
        scored, timeline = await run.session.while_wanted(run.ahead.taken(run.student.step, learning.take))
        run.passing(CrashPoint.AFTER_SCORE_FETCH)
        scored, stale = by_age(scored, run.student.step, run.spec.rollout.oldest)
        scored, rewards = rewarded(run, scored)
        scored_s = time.monotonic()
        shown = chosen(scored)
        with span("learn", {"opd.rollouts": len(scored)}):
            metrics = await learning.step(scored, shown if reports_next(run) else ())
    run.ahead.go_on(run.student.step)
    if run.sources.inbox is not None:
        run.ledger.pushed_after = run.sources.inbox.after
    done = Ended.of(scored, stale, asks_teacher=run.spec.asks_teacher_scores, in_pairs=run.objective.in_pairs)
    run.ledger.rollouts = run.ledger.rollouts.after(done)
    await asyncio.to_thread(keeping.note_if_possible, run, learned(run, done))
    run.ledger.keep_first(metrics)
    if run.objective.target.adaptive:
        run.ledger.clock = advanced(run.ledger.clock, run.objective.target, run.student.step, metrics.get("loss"))
    metrics |= timing(begun_s, scored_s, timeline) | counted(run, scored) | replayed(run, scored) | rewards
    metrics |= writing.by_lag((each.rollout for each in [*scored, *stale]), run.student.step - 1)
    ended = ended_by(run)
    if ended:
        await run.ahead.give_up()
    metrics |= run.ahead.fates() | keeping.since_last_row(run) | {"eval_s": 0.0}
    if ended or run.student.step % run.spec.eval.every == 0:
        measured, held_out = await evaluated(run)
        seen = Shown([each.rollout for each in shown], learning.inspections)
        await report(run, metrics | measured, seen, held_out)
    else:
        await report(run, metrics)
    if not ended:
        await keeping.after_step(run)
    return ended


def reports_next(run: Run) -> bool:
    """Whether the step under way is one whose rollouts are shown, as far as can be told before it is done."""
    done = run.student.step + 1
    return done % run.spec.eval.every == 0 or done >= run.spec.optim.steps or ended_by(run) is not None


def learned(run: Run, done: Ended) -> LearnedStep:
    """What the step that was just done learned from, for the run's history."""
    trained, left_out = (tuple(each.key for each in some) for some in (done.trained, done.left_out + done.stale))
    return LearnedStep(run.session.epoch, run.student.step, trained, left_out)


def rewarded(run: Run, scored: list[Scored]) -> tuple[list[Scored], Metrics]:
    """The rollouts with their advantages, where the run learns from rewards.

    Raises:
        TeacherFailed: no rollout of the step has a valid reward.
    """
    if run.spec.reward is None or not scored:
        return scored, {}
    scored, metrics = with_advantages(scored, run.spec.reward)
    run.ledger.unrewarded_rollouts += sum(s.reward is not None and not s.reward.valid for s in scored)
    if metrics["reward"] is None:
        reasons = [s.reward.detail.get("reason") for s in scored if s.reward is not None]
        reason = next(filter(None, reasons), "none was given")
        raise TeacherFailed("no_rewards", f"no rollout of this step has a valid {run.spec.reward.by.kind}: {reason}")
    return scored, metrics | {"unrewarded": run.ledger.unrewarded_rollouts}


async def evaluated(run: Run) -> tuple[Metrics, Shown]:
    """How good the student is on held-out lines, where there are any, and a few of its answers to look at."""
    if run.eval_examples is None:
        return {}, NOTHING
    begun_s, step = time.monotonic(), run.student.step
    with about(step=step, policy_version=step), span("evaluate", {"opd.examples": len(run.eval_examples)}):
        found, answers = await asyncio.to_thread(evaluate, run.student, run.eval_examples, run.spec)
        may_ask = run.spec.asks_teacher_scores and ended_by(run) in (None, "optim.steps")  # a spent budget asks nobody
        held_out = await looked_at(run, answers, asks_teacher=may_ask)
    if run.spec.rollout.adaptive is not None:
        before = run.ledger.share if run.student.step else Share()
        run.ledger.share = before.after(found["eval_loss"], run.spec.rollout.adaptive)
    return {**found, "eval_s": time.monotonic() - begun_s}, held_out


def ended_by(run: Run) -> str | None:
    """The first limit of the spec that is reached."""
    budget = run.spec.budget
    if run.student.step >= run.spec.optim.steps:
        return "optim.steps"
    if budget.teacher_tokens is not None and run.ledger.teacher_tokens >= budget.teacher_tokens:
        return "budget.teacher_tokens"
    if budget.teacher_usd is not None and spent_usd(run) >= budget.teacher_usd:
        return "budget.teacher_usd"
    if budget.wall_clock_s is not None and time.monotonic() - run.started_s >= budget.wall_clock_s:
        return "budget.wall_clock_s"
    return None


def spent_usd(run: Run) -> float:
    """What all teachers did so far costs, by the prices that they told when this attempt began."""
    return sum(teacher.view.info.prices.usd(run.ledger.usage(teacher.name)) for teacher in run.teachers.everyone)


def timing(begun_s: float, scored_s: float, timeline: Timeline) -> Metrics:
    """Seconds of the step and of its parts, and how far scoring reached into sampling."""
    now_s = time.monotonic()
    return {
        "seconds": now_s - begun_s,
        "learn_s": now_s - scored_s,
        "wait_s": timeline.wait_s,
        "overlap_s": timeline.overlap_s,
    }


def counted(run: Run, scored: list[Scored]) -> Metrics:
    """Adds the step's text to the run's totals and describes it."""
    rollouts = [s.rollout for s in scored]
    run.ledger.student_tokens += sum(len(r.completion_ids) for r in rollouts)
    told = writing.described(rollouts, run.student.step - 1)
    return told | failed_over(scored, run.spec.teachers) | {"dropped": run.ledger.dropped_rollouts}


def spent(run: Run) -> Metrics:
    """What each teacher did so far, where there are several, and what all of it costs, where it does."""
    told: Metrics = {}
    if len(run.teachers.everyone) > 1:
        told |= {f"teacher_tokens/{name}": tokens for name, tokens in sorted(run.ledger.tokens_of.items())}
    if any(teacher.view.info.prices != FREE for teacher in run.teachers.everyone):
        told["teacher_usd"] = spent_usd(run)
    return told


def replayed(run: Run, scored: list[Scored]) -> Metrics:
    """Keeps the student's fresh text for later steps, and tells what the schedule of an adaptive source did."""
    replay, written_at = run.sources.replay, run.student.step - 1
    if replay is None:
        return {}
    own = [s.rollout for s in scored if s.rollout.source == "student"]
    fresh = [rollout for rollout in own if rollout.policy_version == written_at]
    replay.keep(fresh)
    return {
        "student_share": run.ledger.share.of(replay.schedule),
        "replayed": (len(own) - len(fresh)) / len(scored),
        "buffered": len(replay.rollouts),
    }


async def report(run: Run, metrics: Metrics, shown: Shown = NOTHING, held_out: Shown = NOTHING) -> None:
    """One row for the step, with a few texts to look at: of those that it learned from, and of held-out answers."""
    log.info("a step is done")
    metrics = metrics | spent(run)
    tokens = (run.ledger.student_tokens, run.ledger.teacher_tokens)
    inspections = {**shown.inspections, **held_out.inspections}
    await run.session.step(run.student.step, metrics, *tokens, shown.rollouts, held_out.rollouts, inspections)
    totals = dict(zip(("student_tokens", "teacher_tokens"), tokens, strict=True))
    await run.trackers.tell(run.session, run.student.step, metrics | totals)
