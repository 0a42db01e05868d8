"""Our losses beside the public ones of TRL, Liger and torchtune, on the same inputs: values and gradients.

`make bench-peers` installs them; `tests/e2e/run` runs this file, which pytest does not collect by itself. Differences:

- TRL's generalised JSD of GKD and its chunked divergence: none. beta stands on the teacher, 0 and 1 are the two KLs.
- Liger's chunked JSD: none in the divergence. It has no mask without its hard loss and gives a mean over the rows; it
  gets the rows of the mask alone and its mean is multiplied by their number.
- torchtune's forward KL leaves out the teacher's entropy: it is the cross-entropy of q and p. Its gradient is that of
  the KL, its value is larger by H(q). The symmetric loss is half of that and half of reverse KL.
- torchtune as a package does not import here: it asks for torchao, which this project has no use for. Its losses are in
  one file that needs torch alone, and that file is what runs. Its chunked classes are the same losses in slices.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from peers_worker import BETAS
from safetensors.torch import load_file, save_file
from torch import Tensor

from tutelage.core import kernels
from tutelage.core.batch import OutputHead
from tutelage.core.divergences import divergence
from tutelage.core.fused import fused_divergence
from tutelage.core.kl import entropy

ROOT = Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
ROWS, VOCABULARY, WIDTH, TEACHER_WIDTH = 70, 300, 16, 24


@pytest.fixture(scope="module")
def given() -> dict[str, Tensor]:
    """Hidden states and heads of different widths, logits of a few nats, and a mask with holes."""
    kernels.settle()
    draw = torch.Generator().manual_seed(11)
    shapes = {
        "student_hidden": (ROWS, WIDTH),
        "student_weight": (VOCABULARY, WIDTH),
        "teacher_hidden": (ROWS, TEACHER_WIDTH),
        "teacher_weight": (VOCABULARY, TEACHER_WIDTH),
    }
    named = {name: 0.7 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return named | {"mask": torch.rand(ROWS, generator=draw) > 0.2}


@pytest.fixture(scope="module")
def theirs(given: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    assert PEERS_PYTHON.exists(), "no environment with the public implementations; run `make bench-peers`"
    folder = tmp_path_factory.mktemp("peers")
    save_file(given, folder / "given.safetensors")
    worker = ROOT / "tests" / "support" / "peers_worker.py"
    argv = [PEERS_PYTHON, worker, folder / "given.safetensors", folder / "out.safetensors"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(folder / "out.safetensors")


def logits(given: dict[str, Tensor], hidden_RH: Tensor) -> tuple[Tensor, Tensor]:
    return hidden_RH @ given["student_weight"].T, given["teacher_hidden"] @ given["teacher_weight"].T


def dense(given: dict[str, Tensor], kind: str, **params: float) -> tuple[Tensor, Tensor]:
    """Sum over the mask from whole logits, and its gradient."""
    hidden_RH = given["student_hidden"].clone().requires_grad_()
    total = divergence(kind, *logits(given, hidden_RH), **params)[given["mask"]].sum()
    return total.detach(), torch.autograd.grad(total, hidden_RH)[0]


def fused(given: dict[str, Tensor], kind: str, **params: Any) -> tuple[Tensor, Tensor]:
    """The same in tiles."""
    hidden_RH, kept = given["student_hidden"].clone().requires_grad_(), given["mask"]
    heads = (OutputHead(given[f"{who}_weight"]) for who in ("student", "teacher"))
    student_head, teacher_head = heads
    total = fused_divergence(
        kind, hidden_RH[kept], student_head, given["teacher_hidden"][kept], teacher_head, tile_rows=16, **params
    ).total
    return total.detach(), torch.autograd.grad(total, hidden_RH)[0]


def assert_same(ours: tuple[Tensor, Tensor], theirs: dict[str, Tensor], name: str, beyond: float = 0.0) -> None:
    total, gradient_RH = ours
    assert total.item() + beyond == pytest.approx(theirs[f"{name}/loss"].item(), rel=1e-5)
    other_RH = theirs[f"{name}/gradient"]
    assert (gradient_RH - other_RH).norm() <= 1e-4 * other_RH.norm()


@pytest.mark.parametrize("form", [dense, fused])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("peer", ["trl_gkd", "trl_chunked", "liger"])
def test_generalised_jsd_is_theirs(
    given: dict[str, Tensor], theirs: dict[str, Tensor], peer: str, beta: float, form: Any
) -> None:
    assert_same(form(given, "jsd", beta=beta), theirs, f"{peer}/{beta}")


def test_reverse_kl_is_torchtunes(given: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert_same(dense(given, "reverse_kl"), theirs, "torchtune/ReverseKLLoss")


def test_forward_kl_is_torchtunes_less_the_entropy(given: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    _, teacher_RV = logits(given, given["student_hidden"])
    entropy_sum = entropy(teacher_RV.log_softmax(-1))[given["mask"]].sum().item()
    assert_same(dense(given, "forward_kl"), theirs, "torchtune/ForwardKLLoss", beyond=entropy_sum)
    (total, gradient_RH), (other, other_RH) = (dense(given, kind) for kind in ("forward_kl", "reverse_kl"))
    symmetric = ((total + other) / 2, (gradient_RH + other_RH) / 2)
    assert_same(symmetric, theirs, "torchtune/SymmetricKLLoss", beyond=entropy_sum / 2)
