"""The pieces of the loss benchmark that could be wrong: a cell from end to end, its idea of equality."""

from __future__ import annotations

import pytest
import torch
from benchmarks.loss import FULL, SHORT, Plan, Shape, measured
from benchmarks.loss.side import OURS, PEERS, Outcome, agree


def outcome(loss: float = 3.0, hidden: float = 1.0, weight: float | None = 2.0) -> Outcome:
    gradients = {"hidden": torch.full((2, 3), hidden)}
    return Outcome(loss, 1.0, gradients if weight is None else gradients | {"weight": torch.full((4, 3), weight)})


def test_a_cell_compares_equal_work_and_counts_what_each_side_held() -> None:
    shape = Shape(rows=300, hidden=8, vocabulary=500)
    cell = measured(Plan("tiny", shape, "dense", pairs=2))
    assert cell.equal
    assert cell.counted["loss_ours"] == pytest.approx(cell.counted["loss_theirs"], rel=1e-5)
    assert cell.ratio is not None and cell.ratio > 0
    assert cell.counted["cpu_ms_ours"] > 0
    logits_mb = shape.rows * shape.vocabulary * 4 / 1e6
    assert 4 * logits_mb < cell.counted["extra_mb_theirs"] < 12 * logits_mb
    assert 2 * logits_mb < cell.counted["extra_mb_ours"]


@pytest.mark.parametrize(
    "other",
    [outcome(loss=3.001), outcome(hidden=1.001), outcome(weight=2.001), outcome(loss=float("nan"))],
    ids=["loss", "hidden", "weight", "nan"],
)
def test_sides_that_differ_do_not_agree(other: Outcome) -> None:
    assert agree(outcome(), outcome(), "float32")
    assert agree(outcome(), outcome(weight=None), "float32")  # a frozen head beside a trained one
    assert not agree(outcome(), other, "float32")
    assert not agree(outcome(), Outcome(3.0, 1.0, {}), "float32")


def test_every_plan_names_known_sides() -> None:
    for plan in [*FULL, *SHORT]:
        assert plan.peer in PEERS
        assert plan.ours in OURS
