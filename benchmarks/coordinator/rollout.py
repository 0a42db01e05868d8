"""A rollout of ten thousand tokens: its rows, what its page costs the server, and how soon a key is answered on it."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Cell, load_1min, percentile, target
from benchmarks.processes import ROOT
from tutelage_client.wire import Inspection, Rollout

TOKENS, VOCABULARY, TOP = 10_000, 2000, 8
NAME = "long"
ANSWERED_MS = 500.0  # wanted at the 95th percentile
BROWSER_PYTHON = ROOT / ".venv-browser" / "bin" / "python"  # made by `make screenshots`
NO_BROWSER = "; no browser here, `make screenshots` says what it takes"


def long_rollout() -> tuple[Rollout, Inspection]:
    """As a step reports it that was scored on full support."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, VOCABULARY, TOKENS, dtype=np.int32)
    behaviour, teacher = (-draw.exponential(1.0, TOKENS).astype(np.float32) for _ in range(2))
    mask = draw.random(TOKENS) < 0.95
    rollout = Rollout(
        id=NAME,
        source="student",
        policy_version=0,
        prompt_ids=np.array([1, 2, 3], dtype=np.int32),
        completion_ids=ids,
        mask=mask,
        behaviour_logprob=behaviour,
        prompt="How far is it, and why?",
    )
    known: dict[str, Any] = {
        f"{who}_{name}": rows for who in ("student", "teacher") for name, rows in _held(draw).items()
    }
    known |= {"student_logprob": behaviour, "teacher_logprob": teacher, "contribution": behaviour - teacher}
    texts = {int(at): f" word{at}" if at % 40 else "\n" for at in range(VOCABULARY)}
    valid = np.ones(TOKENS, dtype=bool)
    return rollout, Inspection(start=3, valid=valid, texts=texts, learned_tokens=TOKENS, teacher="walker", **known)


def _held(draw: np.random.Generator) -> dict[str, Any]:
    """What a model held of each token."""
    steps = draw.exponential(0.5, (TOKENS, TOP)).astype(np.float32)
    return {
        "entropy": draw.exponential(1.0, TOKENS).astype(np.float32),
        "topk_ids": draw.integers(0, VOCABULARY, (TOKENS, TOP), dtype=np.int32),
        "topk_logprob": -np.cumsum(steps, axis=1) - 1.5,
    }


def has_browser() -> bool:
    return BROWSER_PYTHON.exists() and shutil.which(os.environ.get("CHROMIUM", "/usr/bin/chromium")) is not None


def in_browser(url: str, count: int) -> Cell:
    """ours: until a key was answered and that was painted, the request and the server's time in it included; lists_ms:
    until the most likely tokens of both stood beside it"""
    script = str(Path(__file__).with_name("opening.py"))
    done = subprocess.run([str(BROWSER_PYTHON), script, url, str(count)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    counted = {
        "p95_ms": percentile(told["ms"], 0.95),
        "max_ms": max(told["ms"]),
        "lists_ms": statistics.median(told["lists_ms"]),
        "requests": count,
        "tokens": TOKENS,
        "load_1min": load_1min(),
    }
    return Cell(
        cell="rollout page in Chromium, until a key is answered",
        peer=None,
        ours=statistics.median(told["ms"]),
        equal=all(said.startswith("Token ") and said.endswith("; the worst here") for said in told["said"]),
        counted=counted,
        target=target(counted, "p95_ms", ANSWERED_MS),
    )
