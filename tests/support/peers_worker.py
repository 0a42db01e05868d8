"""Losses and gradients of public implementations, computed in the environment of `make bench-peers`; no code of ours.

    python peers_worker.py IN OUT

IN holds hidden states, heads and a mask as safetensors; OUT gets `NAME/loss` and `NAME/gradient`, the latter with
respect to the student's hidden states. Every loss is a sum over the tokens of the mask.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

IGNORED = -100
BETAS = (0.0, 0.3, 0.5, 1.0)


class Problem:
    """hidden [N, H] and head [V, H] of both, mask [N]; the student's hidden states are a leaf."""

    def __init__(self, given: dict[str, Tensor]) -> None:
        self.hidden = given["student_hidden"].clone().requires_grad_()
        self.weight, self.teacher_hidden = given["student_weight"], given["teacher_hidden"]
        self.teacher_weight, self.mask = given["teacher_weight"], given["mask"]

    @property
    def logits(self) -> tuple[Tensor, Tensor]:
        return self.hidden @ self.weight.T, self.teacher_hidden @ self.teacher_weight.T

    @property
    def labels(self) -> Tensor:
        return torch.where(self.mask, 0, IGNORED)


def trl_gkd(problem: Problem, beta: float) -> Tensor:
    from trl.experimental.gkd.gkd_trainer import GKDTrainer  # pyright: ignore[reportMissingImports]

    student, teacher = (logits[None] for logits in problem.logits)
    return GKDTrainer.generalized_jsd_loss(student, teacher, problem.labels[None], beta=beta, reduction="sum")


def trl_chunked(problem: Problem, beta: float) -> Tensor:
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # pyright: ignore[reportMissingImports]

    mask = problem.mask[None].long()
    hidden, teacher = problem.hidden[None], problem.teacher_hidden[None]
    return _chunked_divergence_loss(
        hidden, teacher, problem.weight, problem.teacher_weight, mask, beta, num_items_in_batch=1
    )[0]


def liger_chunked(problem: Problem, beta: float) -> Tensor:
    """It projects masked rows too and has no mask without its hard loss, so it gets the rows of the mask alone."""
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss  # pyright: ignore[reportMissingImports]

    kept = problem.mask
    measure = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=False)
    labels = torch.zeros(int(kept.sum()), dtype=torch.long)
    mean = measure(problem.hidden[kept], problem.weight, problem.teacher_hidden[kept], problem.teacher_weight, labels)
    return len(labels) * mean


def torchtune(name: str) -> Callable[[Problem], Tensor]:
    """A class of torchtune's kd_losses, which needs torch alone; its package does not import without torchao."""

    def loss(problem: Problem) -> Tensor:
        path = distribution("torchtune").locate_file("torchtune/modules/loss/kd_losses.py")
        spec = importlib.util.spec_from_file_location("kd_losses", str(path))
        assert spec is not None and spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        student, teacher = problem.logits
        return getattr(module, name)()(student, teacher, problem.labels, normalize=False)

    return loss


def with_beta(loss: Callable[[Problem, float], Tensor], beta: float) -> Callable[[Problem], Tensor]:
    return lambda problem: loss(problem, beta)


CHUNKED = {"trl_gkd": trl_gkd, "trl_chunked": trl_chunked, "liger": liger_chunked}
LOSSES: dict[str, Callable[[Problem], Tensor]] = {
    **{f"{name}/{beta}": with_beta(loss, beta) for name, loss in CHUNKED.items() for beta in BETAS},
    **{f"torchtune/{name}": torchtune(name) for name in ("ForwardKLLoss", "ReverseKLLoss", "SymmetricKLLoss")},
}


def main(given: str, out: str) -> None:
    few = torch.full((16,), 0.5)
    for function in (torch.exp, torch.log, torch.log1p, torch.expm1):
        function(few)  # the first call from several threads at once may be of low precision
    computed: dict[str, Tensor] = {}
    for name, loss in LOSSES.items():
        problem = Problem(load_file(given))
        value = loss(problem)
        value.backward()
        assert problem.hidden.grad is not None
        computed |= {f"{name}/loss": value.detach().reshape(1), f"{name}/gradient": problem.hidden.grad}
    save_file(computed, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
