"""A shown rollout as the page has it: tokens as text, by the gap between teacher and student, with their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup, escape
from numpy.typing import NDArray
from pydantic_core import to_json

from tutelage.coordinator.dashboard import words
from tutelage_client.wire import Inspection, Rollout, RolloutView

# Between the classes of log q - log p, in nats; and of -log mu, for texts of which no teacher was asked. Fixed, so that
# a colour is the same on every page.
GAPS = (-4.0, -2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0, 4.0)
SURPRISE = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
BLOCK = 500


class Block(NamedTuple):
    """tokens: as HTML"""

    start: int
    tokens: Markup


@dataclass(frozen=True)
class Side:
    """One rollout of the page. scale: what its colours are of, "gap", "surprise" or nothing

    numbers: what the script says of the token in focus, as JSON that is safe in HTML
    """

    sample: RolloutView
    scale: str
    blocks: list[Block]
    numbers: Markup
    mean_gap: float | None
    least_gap: float | None


def side(sample: RolloutView, run_id: str) -> Side:
    shades, labels = _shades(sample)
    gap = None if sample.inspection is None else sample.inspection.gap
    known = np.zeros(0) if gap is None else gap[np.isfinite(gap)]
    tokens = _tokens(sample.rollout, sample.inspection, shades, labels)
    return Side(
        sample=sample,
        scale=_scale(sample),
        blocks=_blocks(tokens),
        numbers=htmlsafe_json_dumps(_numbers(sample, run_id), dumps=lambda told: to_json(told).decode()),
        mean_gap=float(known.mean()) if len(known) else None,
        least_gap=float(known.min()) if len(known) else None,
    )


def _scale(sample: RolloutView) -> str:
    if sample.inspection is not None and sample.inspection.valid.any() and sample.inspection.gap is not None:
        return "gap"
    return "" if _surprise(sample) is None else "surprise"


def _surprise(sample: RolloutView) -> NDArray[np.float32] | None:
    """-log mu of each token, or -log p of text that no student wrote."""
    if sample.rollout.behaviour_logprob is not None:
        return -sample.rollout.behaviour_logprob
    return None if sample.inspection is None else -sample.inspection.student_logprob


def _shades(sample: RolloutView) -> tuple[list[str], list[str]]:
    """Of each token the name of its class, and its value as the end of what is said of it."""
    scale, gap = _scale(sample), None if sample.inspection is None else sample.inspection.gap
    surprise = _surprise(sample)
    if scale == "gap" and gap is not None:
        classes = np.searchsorted(GAPS, gap, side="right").tolist()
        unknown = np.isnan(gap).tolist()
        return (
            ["" if lacks else f"g{at}" for at, lacks in zip(classes, unknown, strict=True)],
            [", not scored" if isnan(value) else f", gap {words.signed(value)}" for value in gap.tolist()],
        )
    if surprise is not None:
        classes = np.searchsorted(SURPRISE, surprise, side="right").tolist()
        return [f"s{at}" for at in classes], [f", surprise {value:.2f}" for value in surprise.tolist()]
    nothing = [""] * len(sample.rollout.completion_ids)
    return nothing, nothing


def _tokens(rollout: Rollout, inspection: Inspection | None, shades: list[str], labels: list[str]) -> list[str]:
    """Each token as an option of the listbox, in HTML.

    Made here because a template takes too long for ten thousand: a text is escaped once for all its tokens.
    """
    texts: Mapping[int, str] = {} if inspection is None else inspection.texts
    ids, learned = rollout.completion_ids.tolist(), rollout.mask.tolist()
    words_of = {token_id: _escaped(token_id, texts.get(token_id)) for token_id in set(ids)}
    made: list[str] = []
    for token_id, is_learned, shade, label in zip(ids, learned, shades, labels, strict=True):
        text, said, end = words_of[token_id]
        mask, note = ("", "") if is_learned else (" masked", ", not learned from")
        made.append(f'<span role="option" aria-label="{said}{label}{note}" class="{shade}{mask}">{text}</span>{end}')
    return made


def _blocks(tokens: list[str]) -> list[Block]:
    starts = range(0, len(tokens), BLOCK)
    return [Block(at, Markup("".join(tokens[at : at + BLOCK]))) for at in starts]  # noqa: S704 - escaped by `_tokens`


def _escaped(token_id: int, text: str | None) -> tuple[Markup, Markup, str]:
    """A token for who sees it, for who hears it, and what ends its line."""
    if text is None:
        return escape(str(token_id)), escape(f"token {token_id}"), ""
    return escape(words.visible(text)), escape(words.aloud(text)), "<br>" if "\n" in text else ""


def _numbers(sample: RolloutView, run_id: str) -> dict[str, Any]:
    """Null is unknown, but -inf in `teacher_logprob` where `valid`. Lists of probable tokens are fetched from `url`."""
    rollout, inspection = sample.rollout, sample.inspection
    told: dict[str, Any] = {
        "step": sample.step,
        "ids": rollout.completion_ids.tolist(),
        "mask": rollout.mask.tolist(),
        "behaviour_logprob": None if rollout.behaviour_logprob is None else _rounded(rollout.behaviour_logprob),
        "url": None,
    }
    if inspection is None:
        return told
    rows = {name: getattr(inspection, name) for name in ("student_logprob", "student_entropy", "contribution")}
    rows |= {name: getattr(inspection, name) for name in ("teacher_logprob", "teacher_entropy")}
    return (
        told
        | {name: None if array is None else _rounded(array) for name, array in rows.items()}
        | {"valid": inspection.valid.tolist(), "learned_tokens": inspection.learned_tokens}
        | {"url": f"/v1/runs/{quote(run_id, safe='')}/rollouts/{quote(rollout.id, safe='')}"}
    )


def _rounded(array: NDArray[np.float32]) -> list[float | None]:
    """To four decimals; None where it is not finite."""
    values: list[float | None] = array.astype(np.float64).round(4).tolist()
    for at in np.flatnonzero(~np.isfinite(array)).tolist():
        values[at] = None
    return values
