"""Rollouts that a trainer chose to show, as tokens with what the policy that wrote them thought of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.coordinator.pages import page
from tutelage.coordinator.tables import RolloutRow
from tutelage_client.wire import Page, Rollout, RolloutSample

# Upper ends in nats of the classes of -log mu; what is beyond the last is a class too. One scale for all rollouts.
SURPRISE = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
BLOCK = 500


class Token(NamedTuple):
    """shade: the class of its surprise, None where nobody said how probable it was."""

    token_id: int
    shade: int | None
    masked: bool


class Block(NamedTuple):
    start: int
    tokens: Sequence[Token]


def sample_list(session: Session, run_id: str, after: str | None, limit: int) -> Page[RolloutSample]:
    """The newest steps first."""
    query = select(RolloutRow).where(RolloutRow.run_id == run_id)
    keys = RolloutRow.step, RolloutRow.rollout_id
    return page(session, query, keys, _view, after=after, limit=limit, newest_first=True)


def sample(session: Session, run_id: str, rollout_id: str) -> RolloutSample | None:
    """None: the run has shown no such rollout, or it was of an attempt that no longer counts."""
    row = session.get(RolloutRow, (run_id, rollout_id))
    return None if row is None else _view(row)


def _view(row: RolloutRow) -> RolloutSample:
    return RolloutSample.model_validate({"step": row.step, "epoch": row.epoch, "rollout": row.rollout})


def blocks(rollout: Rollout) -> list[Block]:
    """The completion in blocks of BLOCK tokens."""
    shades = (
        [None] * len(rollout.completion_ids)
        if rollout.behaviour_logprob is None
        else _shades(rollout.behaviour_logprob)
    )
    rows = zip(rollout.completion_ids.tolist(), shades, rollout.mask.tolist(), strict=True)
    tokens = [Token(token_id, shade, not learned) for token_id, shade, learned in rows]
    return [Block(start, tokens[start : start + BLOCK]) for start in range(0, len(tokens), BLOCK)]


def _shades(logprob: NDArray[np.floating]) -> list[int]:
    return np.searchsorted(SURPRISE, -logprob, side="right").tolist()


def numbers(rollout: Rollout) -> dict[str, list[float] | None]:
    """What the script says of the token in focus."""
    logprob = rollout.behaviour_logprob
    return {"logprob": None if logprob is None else [round(float(value), 4) for value in logprob]}
