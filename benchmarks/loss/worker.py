"""One side of the loss benchmark in a process of its own; runs in either environment, one JSON object a line.

First line in: {"side", "rows", "hidden", "vocabulary", "beta", "dtype", "frozen", "threads"}. Then commands:
    {"result": path} -> {"loss", "extra_bytes"}: one run under the memory profiler; what is compared is saved there
    {"run": true}    -> {"cpu_s"}: one forward and backward pass, and the processor time of all its threads
The end of the input ends it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.memory import peak_bytes

# Libraries print too; the answers keep the real standard output to themselves.
ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

GEMM_ROWS = 512


class Problem(NamedTuple):
    """Student and teacher: hidden states [N, H] and output heads [V, H]; beta of the generalised JSD."""

    hidden_NH: Tensor
    weight_VH: Tensor
    teacher_hidden_NH: Tensor
    teacher_weight_VH: Tensor
    beta: float

    @property
    def student(self) -> list[Tensor]:
        return [x for x in (self.hidden_NH, self.weight_VH) if x.requires_grad]


Side = Callable[[], Tensor | None]


def made(settings: dict[str, Any]) -> Problem:
    """Hidden states of unit variance; heads that give logits with a standard deviation of 2, teacher near student."""
    draw = torch.Generator().manual_seed(0)
    rows, width, size = settings["rows"], settings["hidden"], settings["vocabulary"]
    hidden_NH, weight_VH = (torch.randn(n, width, generator=draw) for n in (rows, size))
    teacher_NH, teacher_VH = (x + 0.5 * torch.randn(x.shape, generator=draw) for x in (hidden_NH, weight_VH))
    scale = 2 / width**0.5
    dtype = getattr(torch, settings["dtype"])
    parts = (x.to(dtype) for x in (hidden_NH, scale * weight_VH, teacher_NH, scale * teacher_VH))
    problem = Problem(*parts, beta=settings["beta"])
    problem.hidden_NH.requires_grad_()
    problem.weight_VH.requires_grad_(not settings["frozen"])
    return problem


def fused(token_ids_N: Tensor | None, problem: Problem) -> Side:
    """Ours as the trainer calls it, with a workspace that is kept."""
    from tutelage.core.batch import OutputHead
    from tutelage.core.fused import fused_divergence
    from tutelage.core.workspace import Workspace

    hidden_NH, weight_VH, teacher_NH, teacher_VH, beta = problem
    head, teacher_head = OutputHead(weight_VH), OutputHead(teacher_VH)
    kept: dict[str, Any] = {"token_ids_R": token_ids_N, "workspace": Workspace()}
    return lambda: fused_divergence("jsd", hidden_NH, head, teacher_NH, teacher_head, beta=beta, **kept).total


def ours(problem: Problem) -> Side:
    return fused(None, problem)


def with_metrics(problem: Problem) -> Side:
    """Ours, with the per-row values that the trainer reports."""
    return fused(torch.arange(len(problem.hidden_NH)) % len(problem.weight_VH), problem)


def dense(problem: Problem) -> Tensor:
    """Whole logits, log-softmax in float32, autograd."""
    hidden_NH, weight_VH, teacher_NH, teacher_VH, beta = problem
    logp = (hidden_NH @ weight_VH.T).float().log_softmax(-1)
    with torch.no_grad():
        logq = (teacher_NH @ teacher_VH.T).float().log_softmax(-1)
    p, q = logp.exp(), logq.exp()
    if beta == 1:
        return (p * (logp - logq)).sum()
    log_mixed = (beta * q + (1 - beta) * p).log()
    return beta * (q * (logq - log_mixed)).sum() + (1 - beta) * (p * (logp - log_mixed)).sum()


def trl(problem: Problem) -> Tensor:
    """The sum that `DistillationTrainer` divides by its number of tokens; it gives the student's entropy as well."""
    from trl.trainer.distillation_trainer import _chunked_divergence_loss  # pyright: ignore[reportMissingImports]

    hidden_NH, weight_VH, teacher_NH, teacher_VH, beta = problem
    mask = torch.ones(1, len(hidden_NH), dtype=torch.long)
    return _chunked_divergence_loss(
        hidden_NH[None], teacher_NH[None], weight_VH, teacher_VH, mask, beta, num_items_in_batch=1
    )[0]


def liger(problem: Problem) -> Tensor:
    """The mean over rows times their number; without the hard loss, uncompiled as no compiler is needed on any side."""
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss  # pyright: ignore[reportMissingImports]

    hidden_NH, weight_VH, teacher_NH, teacher_VH, beta = problem
    measure = LigerFusedLinearJSDLoss(weight_hard_loss=0.0, weight_soft_loss=1.0, beta=beta, compiled=False)
    labels_N = torch.zeros(len(hidden_NH), dtype=torch.long)
    return len(hidden_NH) * measure(hidden_NH, weight_VH, teacher_NH, teacher_VH, labels_N)


def gemm(problem: Problem) -> Side:
    """The matrix products that no exact loss can do without, and nothing else; three where the head is frozen."""
    kept = torch.empty(2, GEMM_ROWS, len(problem.weight_VH), dtype=problem.weight_VH.dtype)
    return partial(products, problem, *kept)


@torch.no_grad()
def products(problem: Problem, student_TV: Tensor, teacher_TV: Tensor) -> None:
    hidden_NH, weight_VH, teacher_NH, teacher_VH, _ = problem
    total_VH = torch.zeros_like(weight_VH)
    for hidden_TH, teacher_TH in zip(hidden_NH.split(GEMM_ROWS), teacher_NH.split(GEMM_ROWS), strict=True):
        logits_TV = torch.mm(hidden_TH, weight_VH.T, out=student_TV[: len(hidden_TH)])
        torch.mm(teacher_TH, teacher_VH.T, out=teacher_TV[: len(hidden_TH)])
        torch.mm(logits_TV, weight_VH)
        if weight_VH.requires_grad:
            total_VH.addmm_(logits_TV.T, hidden_TH)


SIDES: dict[str, Callable[[Problem], Side]] = {
    "ours": ours,
    "with_metrics": with_metrics,
    "dense": partial(partial, dense),
    "trl": partial(partial, trl),
    "liger": partial(partial, liger),
    "gemm": gemm,
}


def once(side: Side, problem: Problem) -> Tensor | None:
    for tensor in problem.student:
        tensor.grad = None
    loss = side()
    if loss is not None:
        loss.backward()
    return loss


def result(side: Side, problem: Problem, path: str) -> dict[str, float]:
    """The loss, and the bytes beyond hidden states, heads and their gradients; the gradients are saved.

    That of a head is large: its products with a few random vectors stand for it, which differ wherever it does.
    """
    loss: list[Tensor] = []
    most = peak_bytes(lambda: loss.append(value) if (value := once(side, problem)) is not None else None)
    gradients = {name: x.grad for name, x in zip(("hidden", "weight"), problem.student, strict=False)}
    probes_HP = torch.randn(problem.weight_VH.shape[1], 8, generator=torch.Generator().manual_seed(1))
    known = {name: x.float() for name, x in gradients.items() if x is not None}
    torch.save({name: x @ probes_HP if name == "weight" else x for name, x in known.items()}, path)
    held = sum(x.nbytes for x in gradients.values() if x is not None)
    return {"loss": float(loss[0]) if loss else 0.0, "extra_bytes": most - held}


def run(side: Side, problem: Problem) -> dict[str, float]:
    begun_s = time.process_time()
    once(side, problem)
    return {"cpu_s": time.process_time() - begun_s}


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    torch.set_num_threads(settings["threads"])
    problem = made(settings)
    side = SIDES[settings["side"]](problem)
    for line in sys.stdin:
        command = json.loads(line)
        answer = result(side, problem, command["result"]) if "result" in command else run(side, problem)
        ANSWERS.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
