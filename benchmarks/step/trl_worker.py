"""TRL's DistillationTrainer on command: runs in TRL's own environment and imports nothing of this project.

One JSON object a line. First line in: the settings. Then commands, each with one line in answer:
    {"first_step": {"prompts": [..], "completions": [[id, ..], ..]}} -> {"loss", "grad_norm", "tokens", "prompt_ids"}
    {"steps": n} -> {"seconds": [n], "tokens": [n]}: the next n steps of one `train()` that goes on between commands
The end of the input ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch
from datasets import Dataset  # pyright: ignore[reportMissingImports]
from transformers import TrainerCallback
from trl import DistillationConfig, DistillationTrainer  # pyright: ignore[reportMissingImports]

# Libraries print too; the answers keep the real standard output to themselves.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def answer(content: dict[str, Any]) -> None:
    ANSWERS.write(json.dumps(content) + "\n")


class Observed(DistillationTrainer):
    """The trainer as it is; it notes how many tokens it learned from and its loss, or learns from given completions."""

    given: list[list[int]] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tokens: list[int] = []
        self.losses: list[Any] = []
        self.prompt_ids: list[list[int]] = []

    def _generate_single_turn(self, prompt_ids: Any, *rest: Any, **options: Any) -> Any:
        if self.given is None:
            return super()._generate_single_turn(prompt_ids, *rest, **options)
        self.prompt_ids = [list(ids) for ids in prompt_ids]
        return self.given

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
        self.tokens.append(int(inputs["completion_mask"].sum()))
        loss = super().compute_loss(model, inputs, *rest, **options)
        self.losses.append(loss.detach())
        return loss


def trainer(settings: dict[str, Any], prompts: list[str], steps: int, **changed: Any) -> Observed:
    """Settings that are not TRL's defaults make it faster or equal to the other side; see `benchmarks.step.theirs`."""
    config = DistillationConfig(**settings["config"] | {"max_steps": steps} | changed)
    data = Dataset.from_dict({"prompt": prompts})
    return Observed(model=settings["student"], teacher_model=settings["teacher"], args=config, train_dataset=data)


class GradNorm(TrainerCallback):
    """Notes the gradient's norm before it is clipped."""

    value: float | None = None

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        norm = (logs or {}).get("grad_norm")
        self.value = self.value if norm is None else float(norm)


def first_step(settings: dict[str, Any], prompts: list[str], completions: list[list[int]]) -> dict[str, Any]:
    """One whole optimiser step on the given completions instead of sampled ones."""
    once = trainer(settings, prompts, 1, shuffle_dataset=False, logging_steps=1)
    norm = GradNorm()
    once.add_callback(norm)
    once.given = completions
    once.train()
    return {
        "loss": float(once.losses[0]),
        "grad_norm": norm.value,
        "tokens": once.tokens[0],
        "prompt_ids": once.prompt_ids,
    }


class Blocks(TrainerCallback):
    """Holds `train()` between two blocks of steps: it waits for the next command inside the last step's callback."""

    def __init__(self, observed: Observed, first: int) -> None:
        self.observed = observed
        self.wanted = first
        self.ended_s: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.begin()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.ended_s.append(time.perf_counter())
        if len(self.ended_s) <= self.wanted:
            return
        seconds = [after - before for before, after in zip(self.ended_s, self.ended_s[1:], strict=False)]
        answer({"seconds": seconds, "tokens": self.observed.tokens})
        command = next_command()
        if command is None:
            control.should_training_stop = True
        else:
            self.wanted = command["steps"]
            self.begin()

    def begin(self) -> None:
        self.observed.tokens = []
        self.ended_s = [time.perf_counter()]


def next_command() -> dict[str, Any] | None:
    line = sys.stdin.readline()
    return json.loads(line) if line.strip() else None


def main() -> None:
    settings = next_command()
    assert settings is not None
    torch.set_num_threads(settings["threads"])
    while (command := next_command()) is not None:
        if "first_step" in command:
            answer(first_step(settings, **command["first_step"]))
        else:
            endless = trainer(settings, settings["prompts"], 10**6)
            endless.add_callback(Blocks(endless, command["steps"]))
            endless.train()
            return


if __name__ == "__main__":
    main()
