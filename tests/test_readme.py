"""README and specs say what the committed results say."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from experiments.demo import GRID, SEEDS, page, table

from tutelage_client.spec import load_spec, parse_spec

ROOT = Path(__file__).parents[1]
RESULT = json.loads((ROOT / "docs/results/demo.json").read_text())
README = (ROOT / "README.md").read_text()


def test_the_table_in_the_readme_is_that_of_the_results() -> None:
    found = re.search(r"<!-- results: docs/results/demo.json -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert found is not None
    assert found[1].splitlines() == table(RESULT)


def test_the_page_of_the_results_is_made_from_them() -> None:
    assert (ROOT / "docs/results/demo.md").read_text() == page(RESULT)


@pytest.mark.parametrize("arm", GRID)
def test_the_specs_of_the_demo_carry_what_was_tuned(arm: str) -> None:
    spec = load_spec(ROOT / "examples/skill" / f"{arm}.toml")
    best = max((run for run in RESULT["tuning"]["runs"] if run["arm"] == arm), key=lambda run: run["after"])
    assert best["setting"] == RESULT["arms"][arm]["setting"]
    found = {"lr": spec.optim.lr, "max_probability": getattr(spec.objective, "max_probability", None)}
    assert {name: found[name] for name in best["setting"]} == best["setting"]


def test_distillation_teaches_and_the_control_does_not() -> None:
    assert len(SEEDS) >= 3
    gains = [run["after"] - run["before"] for run in RESULT["runs"] if run["arm"] == "opd"]
    assert len(gains) == len(SEEDS)
    assert min(gains) >= 0.20
    assert RESULT["arms"]["control"]["highest"] < RESULT["arms"]["opd"]["lowest"] - 0.20


def test_the_spec_in_the_readme_is_a_spec() -> None:
    found = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert found is not None
    assert parse_spec(tomllib.loads(found[1])).objective.kind == "divergence"
