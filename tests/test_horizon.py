"""The horizon stage's pages and specs say what its committed result says, and its targets are kept apart."""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from experiments import collapse
from experiments.horizon import ARMS, RATES, SEEDS, greedy_success
from experiments.horizon_page import page, short_table
from hypothesis import given
from hypothesis import strategies as st

from tutelage.rewards import grade
from tutelage_client.spec import load_spec
from tutelage_client.wire import RewardItem, Walk

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples/horizon"
RESULT = json.loads((ROOT / "docs/results/horizon.json").read_text())


@pytest.fixture(scope="module")
def models() -> Any:
    """The script that makes the stage."""
    spec = importlib.util.spec_from_file_location("horizon_models", FOLDER / "make_models.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_the_pages_are_made_from_the_result() -> None:
    assert (ROOT / "docs/results/horizon.md").read_text() == page(RESULT)
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- results: docs/results/horizon.json -->\n(.*?)\n<!-- end -->", readme, re.DOTALL)
    assert found is not None
    assert found[1].splitlines() == short_table(RESULT)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_was_tuned_on_the_same_grid_and_its_spec_carries_the_best(arm: str) -> None:
    tried = [run for run in RESULT["tuning"]["runs"] if run["arm"] == arm]
    assert [run["setting"]["lr"] for run in tried] == list(RATES)
    best = max(tried, key=lambda run: run["after"])
    assert load_spec(FOLDER / f"{arm}.toml").optim.lr == best["setting"]["lr"] == RESULT["arms"][arm]["setting"]["lr"]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_ran_with_every_seed_and_none_spent_more_than_the_budget(arm: str) -> None:
    runs = [run for run in RESULT["runs"] if run["arm"] == arm]
    assert [run["seed"] for run in runs] == RESULT["seeds"] == list(SEEDS)
    assert RESULT["tuning"]["seed"] not in RESULT["seeds"]
    most = max(run["teacher_tokens"] for run in RESULT["runs"])
    spent = [run["teacher_tokens"] / most for run in runs]
    assert all(share == 0 for share in spent) if arm == "control" else min(spent) > 0.9


def test_targets_to_train_on_to_tune_on_and_to_evaluate_on_are_apart(models: Any) -> None:
    parts = models.split(3)
    lines = {
        name: [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text().splitlines()]
        for name in ("prompts", "tune", "eval")
    }
    assert lines["eval"] == [target.line for target in parts.evaluate]
    assert lines["tune"] == [target.line for target in parts.tune]
    sets = [{line["answer"] for line in lines[name]} for name in lines]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert all(target.distance <= models.TRAINED for target in parts.train)


@given(x=st.integers(-12, 12), y=st.integers(-12, 12), seed=st.integers(0, 9), noise=st.sampled_from([0.0, 0.1, 0.3]))
def test_what_is_called_helpful_leads_home(models: Any, x: int, y: int, seed: int, noise: float) -> None:
    moves, choices = models.walk(models.Target(x, y), random.Random(seed), noise)
    assert len(choices) == len(moves) + 1
    if not choices[-1]:
        (reward,) = grade(Walk(), [RewardItem(prompt="p", completion=moves, reference=f"{x},{y}")])
        assert reward.value == 1.0
    if noise == 0.0:
        assert len(moves) == abs(x) + abs(y)


def test_the_shipped_teacher_is_near_perfect_at_every_distance() -> None:
    success = greedy_success(FOLDER / "teacher", FOLDER / "eval.jsonl")
    assert min(success.values()) >= 0.97


def test_the_page_of_the_collapse_is_made_from_its_result_and_both_failing_scenarios_still_fail() -> None:
    result = json.loads((ROOT / "docs/results/collapse.json").read_text())
    assert (ROOT / "docs/results/collapse.md").read_text() == collapse.page(result)
    for kept in (collapse.FORWARD, collapse.SMALL_FAR):
        assert all(run["after"] < run["before"] for run in collapse.runs_of(result, kept))
    assert all(run["after"] > run["before"] for run in collapse.runs_of(result, collapse.CASES[0]))
