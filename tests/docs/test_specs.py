"""Every TOML in the docs is a spec, or completes the skill example to one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, blocks, page_id

from tutelage_client.spec import parse_spec

EXAMPLE = tomllib.loads((ROOT / "examples/skill/opd.toml").read_text())
TABLES = [(page, number, text) for page in PAGES for number, text in enumerate(blocks(page, "toml"))]


def completed(given: dict[str, Any]) -> dict[str, Any]:
    """A fragment in the example's place; the teacher goes where the fragment asks none."""
    spec = EXAMPLE | {key: value for key, value in given.items() if key != "rollout"}
    spec["rollout"] = EXAMPLE["rollout"] | given.get("rollout", {})
    asks = (
        spec["objective"]["kind"] in ("divergence", "policy_gradient", "preference", "sum", "preset")
        or spec["rollout"]["source"] == "teacher"
        or spec.get("reward", {}).get("by", {}).get("kind") in ("reward_model", "rubric", "pairwise")
        or "teacher_share" in spec.get("reward", {})
    )
    if "teachers" not in given and not asks:
        del spec["teachers"]
    if spec["rollout"]["source"] == "pushed":
        spec["data"] = {key: value for key, value in spec["data"].items() if key != "train"}
    return spec


@pytest.mark.parametrize(
    ("page", "number", "text"), TABLES, ids=[f"{page_id(page)}-{number}" for page, number, _ in TABLES]
)
def test_a_spec_in_the_docs_is_taken(page: Path, number: int, text: str) -> None:
    given = tomllib.loads(text)
    parse_spec(given if {"name", "student", "objective"} <= given.keys() else completed(given))
