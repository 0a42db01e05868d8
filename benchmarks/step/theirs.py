"""TRL's side: a worker process in its own environment (`make bench-peers`), which takes a block of steps when told.

Settings that differ from TRL's defaults, in TRL's favour or for equal work: no gradient checkpointing (it would compute
the forward pass twice), no checkpoints, no reports to trackers; float32 on the CPU; one batch of all prompts a step;
`beta` 1, which is reverse KL; a constant learning rate. It logs every 10 steps, its default, where ours reports every
step. Its optimiser is its default, fused AdamW. Its idle threads sleep instead of spinning (OMP_WAIT_POLICY): where
other programs use the cores too, spinning made its steps with two threads several times slower.
"""

from __future__ import annotations

import asyncio
import json
import os
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.step.blocks import Block, Processes
from benchmarks.step.first_step import FirstStep
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Rollout

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-trl" / "bin" / "python"
HINT = "step: ours alone; `make bench-peers` installs TRL beside it, and then both are measured"
LONGEST_LINE = 1 << 26


def available() -> bool:
    return PYTHON.exists()


class Theirs:
    """The worker, spoken to in JSON lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.processes = Processes([process.pid])

    async def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        line = await self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"TRL's worker ended with code {await self.process.wait()}; its log has the reason")
        return json.loads(line)

    async def first_step(self, rollouts: list[Rollout]) -> tuple[FirstStep, bool]:
        """One step on these rollouts, and whether TRL read the prompts as the same tokens."""
        given = {
            "prompts": [rollout.prompt for rollout in rollouts],
            "completions": [rollout.completion_ids.tolist() for rollout in rollouts],
        }
        told = await self.ask({"first_step": given})
        same = told["prompt_ids"] == [rollout.prompt_ids.tolist() for rollout in rollouts]
        return FirstStep(told["loss"], told["grad_norm"], told["tokens"]), same

    async def block(self, steps: int) -> Block:
        cpu_s = self.processes.cpu_s()
        told = await self.ask({"steps": steps})
        return Block(told["seconds"], told["tokens"], (self.processes.cpu_s() - cpu_s) / steps)


@asynccontextmanager
async def theirs(folder: Path, spec: RunSpec, teacher: Path, threads: int) -> AsyncIterator[Theirs]:
    """A worker that loads its models at the first command; its log goes to `folder`, which exists."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    with (folder / f"trl-{threads}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PYTHON, Path(__file__).with_name("trl_worker.py"), stdin=PIPE, stdout=PIPE, stderr=log, env=env,
            limit=LONGEST_LINE,
        )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(settings(folder, spec, teacher, threads)).encode() + b"\n")
        yield Theirs(process)
    finally:
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 30)
        except TimeoutError:
            process.kill()
            await process.wait()


def settings(folder: Path, spec: RunSpec, teacher: Path, threads: int) -> dict[str, Any]:
    """The spec in TRL's words."""
    lines = Path(str(spec.data.train)).read_text().splitlines()
    return {
        "student": spec.student.model,
        "teacher": str(teacher),
        "threads": threads,
        "prompts": [json.loads(line)["prompt"] for line in lines],
        "config": config(spec) | {"output_dir": str(folder)},
    }


def config(spec: RunSpec) -> dict[str, Any]:
    """`DistillationConfig` of the same step."""
    return {
        "use_cpu": True,
        "bf16": False,
        "seed": spec.seed,
        "per_device_train_batch_size": spec.rollout.prompts_per_step,
        "max_completion_length": spec.rollout.max_new_tokens,
        "temperature": spec.rollout.temperature,
        "beta": 1.0,
        "learning_rate": spec.optim.lr,
        "lr_scheduler_type": "constant",
        "weight_decay": spec.optim.weight_decay,
        "adam_beta1": spec.optim.betas[0],
        "adam_beta2": spec.optim.betas[1],
        "max_grad_norm": spec.optim.max_grad_norm,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def version() -> str:
    """TRL's version and torch's, from the environment's metadata."""
    site = next((PYTHON.parents[1] / "lib").glob("python*/site-packages"))
    trl, torch, transformers = (
        next(iter(distributions(name=name, path=[str(site)]))).version for name in ("trl", "torch", "transformers")
    )
    return f"{trl} (torch {torch}, transformers {transformers})"
