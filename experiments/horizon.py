"""The demo's stage `horizon`, properly: six arms at one budget of teacher tokens, tuned alike, five seeds.

Beside the runs' own evaluations at temperature 1, every final model's likeliest walks are graded too.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from experiments.comparison import EXAMPLES, Comparison, compare, write_result
from experiments.horizon_page import page, plot
from tutelage.engines.sampling import sample
from tutelage.rewards import grade
from tutelage.standalone.measure import LanguageModel, encoded, open_model
from tutelage.standalone.stages import HORIZON
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.wire import RewardItem, RunView, Walk

RATES = (5e-4, 1e-3, 2e-3)
SEEDS = (7, 8, 9, 10, 11)
ARMS = ("opd", "opd_forward_kl", "token_kd", "sft", "seqkd", "control")


async def horizon(out: Path) -> None:
    """Tune, then measure; write `out` and the page beside it."""
    grid = {arm: [{"lr": lr} for lr in RATES] for arm in ARMS}
    comparison = Comparison(stage=HORIZON, arms=grid, seeds=SEEDS, measure=likeliest_walks)
    result = await compare(comparison, f"python -m experiments horizon --json {out}")
    write_result(out, result, page(result))
    plot(result, out.with_suffix(".svg"))


async def likeliest_walks(client: CoordinatorClient, run: RunView) -> dict[str, float]:
    """Success of the run's model when it is decoded greedily, by tag."""
    with tempfile.TemporaryDirectory() as folder:
        model = await client.download_model(run.id, Path(folder) / "model")
        return await asyncio.to_thread(greedy_success, model, EXAMPLES / HORIZON.name / "eval.jsonl")


def greedy_success(folder: Path, held_out: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in held_out.read_text().splitlines()]
    model = open_model(folder)
    texts = greedy(model, [line["prompt"] for line in lines])
    items = [
        RewardItem(prompt=line["prompt"], completion=text, reference=line["answer"])
        for line, text in zip(lines, texts, strict=True)
    ]
    by_tag: dict[str, list[float]] = {}
    for line, reward in zip(lines, grade(Walk(), items), strict=True):
        assert reward.value is not None
        by_tag.setdefault(line["tag"], []).append(reward.value)
    return {tag: statistics.mean(values) for tag, values in sorted(by_tag.items())}


def greedy(model: LanguageModel, prompts: Sequence[str]) -> list[str]:
    texts = [""] * len(prompts)
    rows = sample(
        model.network,
        encoded(model, prompts),
        max_new_tokens=64,
        temperature=0.0,
        eos_ids=model.eos_ids,
        pad_id=min(model.eos_ids),
        generator=torch.Generator(),
    )
    for row in rows:
        texts[row.index] = model.text(row.token_ids)
    return texts
