"""Runs beside the main one, for what would end it or needs a spec of its own; a waiting trainer takes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import torch
from stage import Stage
from tiny_run import PROMPTS
from transformers import AutoModelForCausalLM

from harms.harm import RESTART_S
from tutelage_client import history

STEPS = 12
AHEAD: dict[str, Any] = {
    "rollout": {"max_lag": 1},
    "stabilizers": [{"kind": "ratio_clip"}],
    "optim": {"steps": STEPS},
}


async def student_diverges(stage: Stage, random: Random) -> str:
    """A run ends, and says that it diverged. Its trainer takes the next one, which has to make its way."""
    cluster = stage.cluster
    async with cluster.client() as client:
        spoiled = (await client.submit(cluster.spec | _spoiled(cluster.folder, random.choice(PROMPTS)))).id
    run = await cluster.until(spoiled, lambda run: run.status.final)
    assert run.error is not None
    assert (run.status, run.error.code) == ("failed", "diverged")
    assert history.broken(await cluster.history(spoiled)) == []
    return await cluster.submit(optim={"steps": STEPS})


def _spoiled(folder: Path, prompt: str) -> dict[str, Any]:
    """A student that learns from one line, of which it knows a word as infinite: one that no trainer tries it on."""
    student, data = folder / "spoiled", folder / "spoiled.jsonl"
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "student", local_files_only=True)
    model.get_input_embeddings().weight.data[max(int(word.removeprefix("t")) for word in prompt.split())] = torch.inf
    model.save_pretrained(shutil.copytree(folder / "student", student, dirs_exist_ok=True))
    data.write_text(json.dumps({"prompt": prompt, "completion": "t1 t2"}) + "\n")
    sections = {"student": {"model": str(student)}, "teachers": [], "data": {"train": str(data)}}
    rollout = {"source": "data", "prompts_per_step": 1, "max_new_tokens": 6}
    return sections | {"rollout": rollout, "objective": {"kind": "supervised"}}


async def text_waits(stage: Stage, random: Random) -> str:
    """Of a run that writes ahead the teachers are slow: text gets as old as the spec lets it, and no older."""
    cluster = stage.cluster
    run_id = await cluster.submit(**AHEAD)
    await cluster.until(run_id, lambda run: run.step >= 1, within_s=RESTART_S)
    await cluster.teachers_way.set(latency_s=random.uniform(0.05, 0.2))
    try:
        await cluster.until(run_id, lambda run: run.step >= STEPS / 2, within_s=RESTART_S)
    finally:
        await cluster.teachers_way.set()
    rows = (await cluster.history(run_id)).metrics
    assert max(row.get("lag_max", 0) for row in rows) == AHEAD["rollout"]["max_lag"]
    return run_id
