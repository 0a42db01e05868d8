"""Every preset that is built trains three steps: submitted over HTTP by its name, scored by a real teacher's process.

Only the trainer is this process, which executes one run after another, so that none of them loads torch anew. Presets
whose reward is a judge's are learned from in `test_black_box`, beside a model that judges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_stack import Up, small_spec

from tutelage.core.quantiles import QUANTILES
from tutelage.trainer.execute import execute
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.settings import Settings
from tutelage_client.methods import METHODS, Method
from tutelage_client.spec import parse_spec
from tutelage_client.wire import RunStatus

JUDGED = {"ovd", "ropd"}
BUILT = [each for each in METHODS if each.status == "built" and each.name not in JUDGED]
# What the small models need: a k within their 19 tokens, a switch inside three steps.
OWN: dict[str, dict[str, Any]] = {
    "revisiting-opd": {"support": {"k": 8}},
    "reopold": {"terms": [{"until_step": 1}, {"from_step": 1}]},
}
# What a row tells whatever is learned from, and what beside where a teacher scores.
EVERY_RUN = {"student_entropy", "length", "truncated", "repetition", "lag"}
WITH_A_TEACHER = {
    "top_k_overlap",
    "student_overlap_mass",
    "teacher_overlap_mass",
    "student_support_mass",
    "teacher_support_mass",
    "teacher_entropy",
    "entropy_gap",
    "reverse_kl_p10",
    "reverse_kl_p90",
    *(f"log_ratio_p{percent}/0-15" for percent in QUANTILES),
}


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that has everything but trainers."""
    stack = Up(tmp_path_factory.mktemp("presets"), trainers=0)
    yield stack
    stack.stop()


def submission(data: Path, method: Method) -> dict[str, Any]:
    """Its composition alone decides; what it leaves open is small."""
    assert method.composition is not None
    composed: dict[str, Any] = method.composition
    sections: dict[str, Any] = {"objective": {"kind": "preset", "name": method.name} | OWN.get(method.name, {})}
    small: dict[str, Any] = {"prompts_per_step": 3, "max_new_tokens": 16}
    if method.name == "distillm":  # from a share at which it learns from the student, and with a buffer soon full
        small["adaptive"] = {"initial_share": 1.0, "capacity": 3}
    else:
        sections["data"] = {"eval": None}
    if method.needs == ("nothing",):
        sections["teachers"] = None
    if "reward" in composed:
        sections["reward"] = {"by": {"kind": "last_number"}}
    composed_rollout = composed.get("rollout", {})
    if "samples_per_prompt" in composed_rollout:
        small["samples_per_prompt"] = min(2, composed_rollout["samples_per_prompt"])
    if "source" in composed_rollout:
        small["source"] = composed_rollout["source"]
    return small_spec(data, method.name, rollout=small, **sections)


@pytest.mark.parametrize("method", BUILT, ids=lambda method: method.name)
async def test_a_preset_trains_three_steps(waiting: Up, data: Path, method: Method) -> None:
    stack = waiting.described
    async with waiting.client() as client:
        run = await client.submit(submission(data, method))
        settings = Settings(coordinator=stack["coordinator"]["url"], redis_url=stack["redis"]["url"], name="here")
        assert await execute(settings, run.id) is ExitCode.DONE, (await client.run(run.id)).error
        rows = await client.metrics(run.id)
        assert (await client.run(run.id)).status is RunStatus.SUCCEEDED
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for row in rows[1:]:
        assert row["learned_tokens"] > 0
        assert math.isfinite(row["loss"])
        assert math.isfinite(row["grad_norm"])
        assert row["grad_norm"] > 0 or row.get("equal_groups") == 1.0
        scored = parse_spec(run.spec).asks_teacher_scores
        assert (EVERY_RUN | (WITH_A_TEACHER if scored else set())) <= {k for k, v in row.items() if v is not None}


def test_the_presets_that_a_judge_rewards_are_those_left_out() -> None:
    by = {each.name: (each.composition or {}).get("reward", {}).get("by", {}).get("kind") for each in METHODS}
    assert {name for name, kind in by.items() if kind == "rubric"} == JUDGED
