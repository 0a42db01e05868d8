"""AdamW on the mean loss over tokens: its schedule, its limit on the gradient, and its state as tensors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tutelage_client.spec import Optim

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Optimizer:
    """AdamW over `trained`, the parameters by name. `adamw` is torch's own."""

    def __init__(self, trained: dict[str, nn.Parameter], settings: Optim) -> None:
        self.trained = trained
        self.settings = settings
        self.adamw = torch.optim.AdamW(
            trained.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
        )

    def set_lr(self, step: int) -> float:
        """The learning rate that this step uses from now on."""
        lr = self.settings.lr * lr_scale(self.settings, step)
        for group in self.adamw.param_groups:
            group["lr"] = lr
        return lr

    def apply(self, count: float, step: int) -> float:
        """Divide the summed gradients by `count`, bound their norm, move the weights; returns the norm before that.

        Raises:
            ArithmeticError: the norm is not finite; the weights are as they were.
        """
        for parameter in self.trained.values():
            if parameter.grad is not None:
                parameter.grad /= count
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm))
        if not math.isfinite(norm):
            raise ArithmeticError(f"the gradient norm at step {step} is {norm}; lower optim.lr")
        self.adamw.step()
        return norm

    def zero_grad(self) -> None:
        self.adamw.zero_grad()

    def tensors(self) -> dict[str, Tensor]:
        """The moments as `moment/parameter`."""
        return {
            f"{key}/{name}": value.contiguous()
            for name, parameter in self.trained.items()
            for key, value in self.adamw.state[parameter].items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what `tensors()` gave. A parameter that never had a gradient has no moments."""
        for name, parameter in self.trained.items():
            state = {key: tensors[f"{key}/{name}"] for key in MOMENTS if f"{key}/{name}" in tensors}
            if state:
                self.adamw.state[parameter] = state


def lr_scale(optim: Optim, step: int) -> float:
    """Linear warm-up, then constant, or linear or cosine decay to zero at the last step."""
    if step < optim.warmup_steps:
        return (step + 1) / optim.warmup_steps
    done = (step - optim.warmup_steps) / max(1, optim.steps - optim.warmup_steps)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[optim.schedule]
