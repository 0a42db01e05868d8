"""The pieces of the step benchmark that could be wrong: its ideas of loss, equality, time and standing still."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.step import SKILL, TEACHER, compared, step_ms, thousand_tokens_ms
from benchmarks.step.blocks import Block, Processes
from benchmarks.step.first_step import FirstStep, agree, reference, written
from benchmarks.step.ours import measured_spec

from tutelage.engines.hf import open_hf
from tutelage.engines.options import HfOptions
from tutelage.trainer.build import output_head
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.loading import load_student
from tutelage.trainer.marking import Scored
from tutelage.trainer.objectives import objective_of
from tutelage_client.spec import load_spec, parse_spec
from tutelage_client.wire import Completion, Rollout, ScoreGroup, Signal, TokenScores

ROOT = Path(__file__).parents[2]
RESULT = json.loads((ROOT / "docs/results/step.json").read_text())


def scores(rollouts: list[Rollout]) -> list[TokenScores]:
    engine = open_hf(HfOptions(model=str(TEACHER)), "adder")
    groups = [
        ScoreGroup(prompt_ids=r.prompt_ids, completions=(Completion(token_ids=r.completion_ids),)) for r in rollouts
    ]
    blocks, _ = asyncio.run(engine.score(groups, frozenset({Signal.HIDDEN}), None))
    return blocks


def test_the_trainer_learns_what_the_loss_written_out_says() -> None:
    spec = load_spec(SKILL / "opd.toml")
    rollouts = written(spec)[:12]
    student, engine = load_student(SKILL / "student", spec), open_hf(HfOptions(model=str(TEACHER)), "adder")
    student.teacher_heads = {None: output_head(engine.head(), student)}
    scored = [Scored(r, s) for r, s in zip(rollouts, scores(rollouts), strict=True)]
    batches = micro_batches(scored, 200, student.pad_id, student.device, student.teacher_heads, asks_teacher=True)
    learned = student.learn(batches, objective_of(spec, student))
    loss, norm, tokens = (learned[name] or 0.0 for name in ("loss", "grad_norm", "learned_tokens"))
    assert agree(FirstStep(loss, norm, int(tokens)), reference(spec.student.model, TEACHER, rollouts))


@pytest.mark.parametrize(
    "other",
    [
        FirstStep(0.40001, 3.0, 100),
        FirstStep(0.4, 3.001, 100),
        FirstStep(0.4, 3.0, 99),
        FirstStep(float("nan"), 3, 100),
    ],
    ids=["loss", "gradient", "tokens", "nan"],
)
def test_steps_that_differ_do_not_agree(other: FirstStep) -> None:
    assert agree(FirstStep(0.4, 3.0, 100), FirstStep(0.4 * (1 + 1e-6), 3.0 * (1 + 1e-5), 100))
    assert not agree(FirstStep(0.4, 3.0, 100), other)


def test_a_step_is_a_median_and_tokens_are_normalised() -> None:
    block = Block(seconds=[0.1, 0.2, 0.9], tokens=[100, 200, 300], cpu_s=0.3)
    assert step_ms(block) == pytest.approx(200)
    assert thousand_tokens_ms(block) == pytest.approx(2000)


def test_the_ratio_says_how_many_times_longer_theirs_took() -> None:
    pairs = [(Block([0.1], [100], 0.1), Block([0.3], [200], 0.2))] * 5
    by_step, by_tokens = compared(pairs, {"name": "peer"}, True, {})
    assert (by_step.ratio, by_tokens.ratio) == (pytest.approx(3.0), pytest.approx(1.5))
    assert by_step.ci == (pytest.approx(3.0), pytest.approx(3.0))
    assert by_step.counted["tokens_theirs"] == 1000


def test_the_measured_run_is_the_demo_s_without_what_is_no_part_of_a_step() -> None:
    spec = load_spec(SKILL / "opd.toml")
    measured = parse_spec(measured_spec(spec, steps=3))
    assert (measured.rollout, measured.objective, measured.optim.lr) == (spec.rollout, spec.objective, spec.optim.lr)
    assert measured.optim.steps == 3
    assert measured.data.eval is None


@pytest.fixture
def busy_pair() -> Iterator[Processes]:
    """A process and its child, which never ends; both are killed afterwards, whatever came of them."""
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])"
    with subprocess.Popen([sys.executable, "-c", nested]) as parent:
        processes = Processes([parent.pid])
        try:
            until(lambda: len(processes.members()) == 2)
            yield processes
        finally:
            for member in reversed(processes.members()):
                member.kill()


def until(holds: Callable[[], bool]) -> None:
    """Poll, at most half a minute: the system tells nobody when a process has stopped or used its processor."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_stopped_processes_stand_still_with_their_children_and_go_on(busy_pair: Processes) -> None:
    busy_pair.stop()
    until(lambda: {member.status() for member in busy_pair.members()} == {psutil.STATUS_STOPPED})
    used_s = busy_pair.cpu_s()
    assert busy_pair.cpu_s() == used_s
    busy_pair.go_on()
    until(lambda: busy_pair.cpu_s() > used_s)


def test_the_committed_result_compares_equal_work() -> None:
    for cell in RESULT["cells"]:
        counted = cell["counted"]
        assert counted["first_loss_ours"] == pytest.approx(counted["first_loss_theirs"], rel=1e-5)
        assert counted["first_tokens_ours"] == counted["first_tokens_theirs"]
