"""Fixtures of the stack tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_stack import SKILL, Up


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack with two teachers and two trainers that all read-only tests share."""
    novice = f"novice={SKILL / 'student'}"
    stack = Up(tmp_path_factory.mktemp("stack"), "--teacher", novice, trainers=2)
    yield stack
    stack.stop()
    assert stack.process.returncode == 0


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few problems with worked completions, for training and for evaluation."""
    path = tmp_path_factory.mktemp("data") / "problems.jsonl"
    pairs = [(a, b) for a in range(2, 6) for b in range(1, 5)]
    lines = [
        {"prompt": f"{a}+{b}:", "completion": f"{a}+{b}+0={(a + b) % 10},{(a + b) // 10}>{a + b}", "answer": str(a + b)}
        for a, b in pairs
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
