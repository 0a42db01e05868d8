"""A shown rollout as the page has it: tokens as text, by the gap between teacher and student, with their numbers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from tutelage.coordinator.dashboard import words
from tutelage_client.wire import Inspection, Rollout, RolloutView

# Between the classes of log q - log p, in nats; and of -log mu, for texts of which no teacher was asked. Fixed, so that
# a colour is the same on every page.
GAPS = (-4.0, -2.0, -1.0, -0.5, -0.1, 0.1, 0.5, 1.0, 2.0, 4.0)
SURPRISE = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
BLOCK = 250


class Block(NamedTuple):
    """tokens: as HTML"""

    start: int
    tokens: Markup


@dataclass(frozen=True)
class Side:
    """One rollout of the page. scale: what its colours are of, "gap", "surprise" or nothing

    numbers: what the script says of the token in focus
    """

    sample: RolloutView
    scale: str
    blocks: list[Block]
    numbers: dict[str, Any]
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
        numbers=_numbers(sample, run_id),
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
        classes, unknown = np.searchsorted(GAPS, gap, side="right"), np.isnan(gap)
        said = _each(np.round(np.where(unknown, 0, gap), 2), lambda value: f", gap {words.signed(value)}")
        names, lacks = [f"g{at}" for at in range(len(GAPS) + 1)], unknown.tolist()
        return (
            ["" if no else names[at] for at, no in zip(classes.tolist(), lacks, strict=True)],
            [", not scored" if no else value for value, no in zip(said, lacks, strict=True)],
        )
    if surprise is not None:
        classes = np.searchsorted(SURPRISE, surprise, side="right")
        return _each(classes, "s{}".format), _each(np.round(surprise, 2), ", surprise {:.2f}".format)
    nothing = [""] * len(sample.rollout.completion_ids)
    return nothing, nothing


def _each(values: NDArray[Any], told: Callable[[Any], str]) -> list[str]:
    """Each in words, which are made once for all that are alike."""
    listed: list[Any] = values.tolist()
    words_of = {value: told(value) for value in set(listed)}
    return [words_of[value] for value in listed]


def _tokens(rollout: Rollout, inspection: Inspection | None, shades: list[str], labels: list[str]) -> list[str]:
    """Each token as an option of the listbox, in HTML.

    Made here because a template takes too long for ten thousand: a text is escaped once for all its tokens.
    """
    texts: Mapping[int, str] = {} if inspection is None else inspection.texts
    ids, learned = rollout.completion_ids.tolist(), rollout.mask.tolist()
    words_of = {token_id: _escaped(token_id, texts.get(token_id)) for token_id in set(ids)}
    made: list[str] = []
    for token_id, is_learned, shade, label in zip(ids, learned, shades, labels, strict=True):
        before, text = words_of[token_id]
        note, mask = ("", "") if is_learned else (", not learned from", " masked")
        made.append(f'{before}{label}{note}" class="{shade}{mask}">{text}')
    return made


def _blocks(tokens: list[str]) -> list[Block]:
    starts = range(0, len(tokens), BLOCK)
    return [Block(at, Markup("".join(tokens[at : at + BLOCK]))) for at in starts]  # noqa: S704 - escaped by `_tokens`


def _escaped(token_id: int, text: str | None) -> tuple[str, str]:
    """What stands before a token's value, and what behind its class.

    The spaces before a word are no part of its cell, so that a line ends there and not in a cell.
    """
    if text is None:
        return f' <span role=option aria-label="token {token_id}', f"{token_id}</span>"
    shown = words.visible(text)
    begun = f'<span{" dir=auto" if words.is_turned(shown) else ""} role=option aria-label="'
    word = shown.lstrip(" ") or shown
    end = "\n" if "\n" in text else ""
    return f"{shown[: -len(word)]}{begun}{escape(words.aloud(text))}", f"{escape(word)}</span>{end}"


def _numbers(sample: RolloutView, run_id: str) -> dict[str, Any]:
    """Arrays as `_packed` has them. NaN is unknown; lists of probable tokens are fetched from `url`.

    order: the tokens that are learned from, the worst first: where a teacher scored, what it finds least likely beside
    the student; elsewhere what its writer found so
    """
    rollout, inspection = sample.rollout, sample.inspection
    told: dict[str, Any] = {
        "step": sample.step,
        "held_out": sample.held_out,
        "ids": _packed(rollout.completion_ids),
        "mask": _packed(rollout.mask),
        "order": _packed(_worst_first(sample)),
        "behaviour_logprob": _packed(rollout.behaviour_logprob),
        "url": None,
    }
    if inspection is None:
        return told
    teacher = inspection.teacher_logprob
    rows = {name: getattr(inspection, name) for name in ("student_logprob", "student_entropy", "contribution")}
    rows |= {"teacher_entropy": inspection.teacher_entropy}
    rows |= {"teacher_logprob": None if teacher is None else np.where(inspection.valid, teacher, np.float32(np.nan))}
    return (
        told
        | {name: _packed(array) for name, array in rows.items()}
        | {"learned_tokens": inspection.learned_tokens}
        | {"url": f"/runs/{quote(run_id, safe='')}/likely/{quote(rollout.id, safe='')}"}
    )


def _worst_first(sample: RolloutView) -> NDArray[np.int32]:
    surprise = _surprise(sample)
    goodness = sample.inspection.gap if _scale(sample) == "gap" and sample.inspection is not None else None
    if goodness is None:
        if surprise is None:
            return np.zeros(0, np.int32)
        goodness = -surprise
    ranked = np.argsort(goodness, kind="stable")
    return ranked[sample.rollout.mask[ranked] & ~np.isnan(goodness[ranked])].astype(np.int32)


def _packed(array: NDArray[Any] | None) -> str | None:
    """Base64 of little-endian int32 or float32, or of bytes: of thousands quicker to write and to read than digits."""
    if array is None:
        return None
    return b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).decode()
