"""Every kind of run, submitted over HTTP to the real services. All are queued at once and executed by two trainers."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from embedded_stack import SKILL, Up, finished, small_spec, until
from safetensors.torch import load_file

from tutelage_client.spec import SOURCES
from tutelage_client.wire import Rollout, RunStatus

HEARING = ("divergence", "policy_gradient", "preference")
# What a source needs beside its name; the buffer is full only when the run ends, so that no text is old.
OWN: dict[str, dict[str, Any]] = {
    "mix": {"on_policy_fraction": 0.5},
    "teacher_mixed": {"teacher_share": 0.2},
    "adaptive": {"adaptive": {"initial_share": 1.0, "capacity": 12}},
}
KINDS = {(kind, source): {} for kind, sources in SOURCES.items() for source in sources}
SUPPORTS: dict[str, dict[str, Any]] = {
    "teacher_top_k with a tail": {"support": {"kind": "teacher_top_k", "k": 4}},
    "teacher_top_k renormalised": {"support": {"kind": "teacher_top_k", "k": 4, "rest": "renormalise"}},
    "student_top_k with a tail": {"support": {"kind": "student_top_k", "k": 4}},
    "student_top_k renormalised, forward": {
        "divergence": "forward_kl",
        "support": {"kind": "student_top_k", "k": 4, "rest": "renormalise"},
    },
    "sampled, reverse": {"support": {"kind": "sampled"}},
    "sampled, forward": {"divergence": "forward_kl", "support": {"kind": "sampled"}},
    "jsd over the full vocabulary": {"divergence": "jsd", "beta": 0.3},
}
STABILIZERS = [
    {"kind": "signal_clip", "max": 4.0},
    {"kind": "ratio_clip", "max": 2.0},
    {"kind": "special_token_mask"},
    {"kind": "reference_kl", "coef": 0.05},
]
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {"student": {"lora": {"rank": 4, "dropout": 0.1}}, "stabilizers": [{"kind": "reference_kl"}]},
    "beyond the teacher, away from another model": {
        "reference": {"model": str(SKILL / "teacher")},
        "objective": {"kind": "policy_gradient", "target": {"kind": "extrapolation"}},
    },
    "bfloat16": {"student": {"dtype": "bfloat16"}},
    "all stabilizers": {"stabilizers": STABILIZERS},
    "several samples a prompt": {"rollout": {"samples_per_prompt": 3}},
    "a teacher budget": {"budget": {"teacher_tokens": 1}, "diagnostics": {"held_out": 0}},
}


def spec_of(data: Path, kind: str, source: str) -> dict[str, Any]:
    needs_teacher = kind in HEARING or source == "teacher"
    changed: dict[str, Any] = {"rollout": {"source": source} | OWN.get(source, {}), "objective": {"kind": kind}}
    if source == "teacher_mixed":
        changed["stabilizers"] = [{"kind": "ratio_clip"}]
    if kind == "reward":
        changed["reward"] = {"by": {"kind": "last_number"}, "advantage": "batch_normalised"}
    if not needs_teacher:
        changed["teachers"] = None
    if source == "pushed":
        changed["data"] = {"train": None}
    return small_spec(data, f"{kind}-{source}", **changed)


def pushed(count: int) -> list[Rollout]:
    """Trajectories from elsewhere: "3+4:" continued by "3+4+0=7,0>7" and the end token."""
    ids = {c: i + 3 for i, c in enumerate("0123456789+=,;:>")}
    completion = [ids[c] for c in "3+4+0=7,0>7"] + [1]
    return [
        Rollout(
            id=f"pushed-{i}",
            source="pushed",
            policy_version=0,
            prompt_ids=np.array([ids[c] for c in "3+4:"]),
            completion_ids=np.array(completion),
            mask=np.array([True] * len(completion)),
            answer="7",
            behaviour_logprob=np.full(len(completion), -0.5, dtype=np.float32),
        )
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def submitted(up: Up, data: Path) -> dict[Any, str]:
    """Run ids by case; pushed rollouts are handed in at once."""
    specs: dict[Any, dict[str, Any]] = {pair: spec_of(data, *pair) for pair in KINDS}
    specs |= {
        name: small_spec(data, f"support-{i}", objective={"kind": "divergence"} | objective)
        for i, (name, objective) in enumerate(SUPPORTS.items())
    }
    specs |= {name: small_spec(data, f"setting-{i}", **sections) for i, (name, sections) in enumerate(SETTINGS.items())}

    async def submit() -> dict[Any, str]:
        async with up.client() as client:
            runs = {case: (await client.submit(spec)).id for case, spec in specs.items()}
            for case, run_id in runs.items():
                if isinstance(case, tuple) and case[1] == "pushed":
                    assert (await client.push_rollouts(run_id, pushed(12))).accepted == 12
                    assert (await client.push_rollouts(run_id, pushed(12))).duplicates == 12
        return runs

    return asyncio.run(submit())


async def succeeded(up: Up, run_id: str) -> list[dict[str, Any]]:
    """The metric rows of a run that must succeed."""
    run = await finished(up, run_id)
    assert run.status is RunStatus.SUCCEEDED, f"{run.error}\n{up.logs()}"
    async with up.client() as client:
        return await client.metrics(run_id)


@pytest.mark.parametrize(("kind", "source"), KINDS)
async def test_every_objective_learns_from_every_source_that_makes_sense(
    up: Up, submitted: dict[Any, str], kind: str, source: str
) -> None:
    rows = await succeeded(up, submitted[kind, source])
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(row["learned_tokens"] > 0 and math.isfinite(row["grad_norm"]) for row in rows[1:])
    assert all(row["lag"] == (0 if source != "pushed" else row["step"] - 1) for row in rows[1:])
    assert (rows[-1]["teacher_tokens"] > 0) == (kind in HEARING or source == "teacher")
    if kind in HEARING:
        assert all(math.isfinite(row["reverse_kl"]) for row in rows[1:])
    assert 0 <= rows[-1]["accuracy"] <= 1


@pytest.mark.parametrize("name", SUPPORTS)
async def test_every_support_learns(up: Up, submitted: dict[Any, str], name: str) -> None:
    rows = await succeeded(up, submitted[name])
    assert all(math.isfinite(row["loss"]) and row["learned_fraction"] == 1 for row in rows[1:])


@pytest.mark.parametrize("name", SETTINGS)
async def test_every_setting_runs_to_its_end(up: Up, submitted: dict[Any, str], name: str, tmp_path: Path) -> None:
    rows = await succeeded(up, submitted[name])
    assert rows[-1]["step"] == (1 if name == "a teacher budget" else 3)
    if name == "several samples a prompt":
        assert rows[-1]["tokens"] > 12
    async with up.client() as client:
        model = await client.download_model(submitted[name], tmp_path / "model")
    weights = load_file(next(model.rglob("model.safetensors")))
    before = load_file(SKILL / "student/model.safetensors")
    assert weights.keys() == before.keys()
    assert {w.dtype for w in weights.values()} == {torch.bfloat16 if name == "bfloat16" else torch.float32}


async def test_a_run_that_has_loaded_its_student_refuses_what_it_cannot_read(up: Up, data: Path) -> None:
    good = pushed(12)
    beyond = good[0].model_copy(update={"id": "beyond", "completion_ids": good[0].completion_ids + 1000})
    long = good[0].model_copy(update={"id": "long", "prompt_ids": np.tile(good[0].prompt_ids, 100)})
    async with up.client() as client:
        run = await client.submit(spec_of(data, "divergence", "pushed"))
        await until(up, run.id, lambda view: view.status is RunStatus.RUNNING)
        result = await client.push_rollouts(run.id, [beyond, *good, long])
    assert (result.accepted, [each.id for each in result.refused]) == (12, ["beyond", "long"])
    assert "is no token id, those of this run are 0 to 18" in result.refused[0].detail
    assert "the most that student and teachers of this run read" in result.refused[1].detail
    await succeeded(up, run.id)
