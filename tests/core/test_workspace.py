"""Memory kept between passes: the same pages, whatever was left in them."""

from __future__ import annotations

import torch
from torch import Tensor

from tutelage.core.batch import OutputHead
from tutelage.core.fused import fused_divergence
from tutelage.core.pulls import PULLS
from tutelage.core.workspace import Workspace

HERE = torch.zeros(0)


def passed(workspace: Workspace | None, kind: str, rows: int, size: int, dtype: torch.dtype) -> list[Tensor]:
    """Value and gradients of one pass whose numbers depend on its arguments alone."""
    draw = torch.Generator().manual_seed(rows + size)
    hidden, weight, other, teacher = (torch.randn(n, 6, generator=draw, dtype=dtype) for n in (rows, size) * 2)
    hidden.requires_grad_()
    weight.requires_grad_()
    total = fused_divergence(
        kind, hidden, OutputHead(weight), other, OutputHead(teacher), tile_rows=4, workspace=workspace,
        token_ids_R=torch.arange(rows) % size,
    ).total  # fmt: skip
    return [total.detach(), *torch.autograd.grad(total, (hidden, weight))]


def test_passes_of_any_size_and_precision_leave_nothing_to_one_another():
    kept = Workspace()
    sizes = [(9, 50), (3, 20), (12, 70), (1, 5), (9, 50), (12, 70)]
    precisions = [torch.float32, torch.float32, torch.float64, torch.float64, torch.bfloat16, torch.float32]
    for (rows, size), dtype in zip(sizes, precisions, strict=True):
        for kind in PULLS:
            fresh, again = (passed(workspace, kind, rows, size, dtype) for workspace in (None, kept))
            assert all(torch.equal(one, other) for one, other in zip(fresh, again, strict=True))


def test_what_fits_is_where_it_was_and_what_does_not_is_new():
    workspace = Workspace()
    first = workspace.room("tile", (4, 5), HERE, torch.float32)
    assert first.shape == (4, 5)
    assert workspace.room("tile", (3, 2), HERE, torch.float32).data_ptr() == first.data_ptr()
    assert workspace.room("block", (3, 2), HERE, torch.float32).data_ptr() != first.data_ptr()
    assert workspace.room("tile", (3, 2), HERE, torch.float64).data_ptr() != first.data_ptr()
    larger = workspace.room("tile", (5, 5), HERE, torch.float64)
    assert workspace.room("tile", (5, 5), HERE, torch.float64).data_ptr() == larger.data_ptr()


def test_a_second_pass_takes_no_new_room():
    class Counting(Workspace):
        def room(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
            found = super().room(name, shape, like, dtype)
            places.append((name, found.data_ptr()))
            return found

    kept, places = Counting(), list[tuple[str, int]]()
    passed(kept, "jsd", 9, 50, torch.float32)
    first, places = places, []
    passed(kept, "jsd", 7, 50, torch.float32)
    assert places == first
