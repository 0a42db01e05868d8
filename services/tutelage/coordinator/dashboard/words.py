"""Numbers, times and states in words, as the pages show them."""

from __future__ import annotations

from datetime import datetime
from math import isinf
from unicodedata import bidirectional, category

from tutelage_client.wire import Rollout, RunStatus, RunView

_LONGEST_TOKEN = 120
_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍", "\ufffd": "\ufffd"}
_SPACE = "␣"
_SPOKEN = {" ": "space", "\n": "new line", "\t": "tab"}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
WAITS = {
    RunStatus.QUEUED: "waits for a trainer to take it",
    RunStatus.STARTING: "its trainer loads the student",
    RunStatus.VALIDATING: "its trainer checks data and tokenizers",
    RunStatus.PAUSING: "stops after its next checkpoint",
    RunStatus.PAUSED: "paused; resume goes on from the last checkpoint",
    RunStatus.RECOVERING: "its trainer was lost; it goes on from the last checkpoint",
    RunStatus.FINALIZING: "the model is being written",
    RunStatus.CANCELLING: "its trainer is told to stop",
}
_LACKS = {
    "teacher_available": "a teacher does not answer",
    "teacher_within_limits": "a teacher's upstream refuses calls for its limits",
    "queue_available": "the queue is away or full",
    "sampler_available": "no sampler takes its texts",
    "checkpoint_fresh": "checkpoints cannot be written",
}
_REMEDIES = {
    "user": "Mend the spec or its data and submit it again.",
    "data": "Mend the data and submit the run again.",
    "teacher": "Look at the teacher, then submit the run again.",
    "infra": "Look at the machines, then submit the run again.",
    "internal": "This is a fault of the software; the trainer's log has more.",
}


def number(value: float | None) -> str:
    """Four significant figures, thousands apart."""
    if value is None:
        return "–"
    if abs(value) >= 1000 or value == int(value):
        told = f"{value:,.0f}".replace(",", "\u202f")
    else:
        told = f"{value:.4g}" if abs(value) >= 0.001 else f"{value:.1e}"
    return told.replace("-", "−")


def signed(value: float) -> str:
    """With two decimals and its sign; a minus as typographers have it."""
    if isinf(value):
        return "−∞" if value < 0 else "+∞"
    return f"{value:+.2f}".replace("-", "−")


def plainly(value: float) -> str:
    """The end of a class, with its sign and no more digits than it has."""
    return f"{value:+g}".replace("-", "−")


def visible(text: str) -> str:
    """A token with a sign for what has none of its own, or would turn the text around it; cut where it is very long."""
    is_plain = text.isascii() and text.isprintable()  # as most are, of ten thousand
    signs = text if is_plain else "".join(map(_sign, text))
    if not signs:
        return "⟨empty⟩"
    cut = len(signs) - _LONGEST_TOKEN
    return signs if cut <= 0 else f"{signs[:_LONGEST_TOKEN]}… +{cut}"


def alone(text: str) -> str:
    """A token that stands by itself, where spaces at its ends would not be seen."""
    shown = visible(text)
    begun, ended = len(shown) - len(shown.lstrip(" ")), len(shown) - len(shown.rstrip(" "))
    return _SPACE * len(shown) if begun == len(shown) else _SPACE * begun + shown.strip(" ") + _SPACE * ended


def _sign(char: str) -> str:
    return _SIGNS.get(char) or (char if _is_plain(char) else f"⟨U+{ord(char):04X}⟩")


def aloud(text: str) -> str:
    """The same for who hears it: spaces around a word are left out, a token of spaces alone is named."""
    if text and not text.strip():
        kinds = {_SPOKEN.get(char, "space") for char in text}
        return f"{len(text)} × {kinds.pop()}" if len(kinds) == 1 and len(text) > 1 else " and ".join(sorted(kinds))
    return visible(text.strip(" "))


def _is_plain(char: str) -> bool:
    """No control, no mark of direction, nothing that is invisible but a space."""
    return char == " " or category(char) not in ("Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp", "Zs")


def is_turned(text: str) -> bool:
    """Something of it is written from right to left."""
    return not text.isascii() and any(bidirectional(char) in ("R", "AL", "AN") for char in text)


def duration(seconds: float) -> str:
    """The two largest units: `3 h 5 min`."""
    left = max(0, round(seconds))
    for size, unit, smaller, subunit in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if left >= size:
            rest = left % size // smaller
            return f"{left // size} {unit}" + (f" {rest} {subunit}" if rest else "")
    return f"{left} s"


def moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def waiting(run: RunView) -> str | None:
    """Why the run does not make steps just now, a clause; None where it does, or has ended."""
    if run.status.final:
        return None
    lacks = [condition(name) for name, holds in run.conditions.items() if not holds and _is_specific(name, run)]
    return "; ".join(lacks) or WAITS.get(run.status)


def _is_specific(name: str, run: RunView) -> bool:
    """Of `teacher_available` and `teacher_available/NAME` only the latter is said."""
    return not any(other.startswith(f"{name}/") and not holds for other, holds in run.conditions.items())


def condition(name: str) -> str:
    """What it means that a condition does not hold."""
    kind, _, teacher = name.partition("/")
    said = _LACKS.get(kind, f"{kind} does not hold")
    return f"{said} ({teacher})" if teacher else said


def remaining_s(run: RunView) -> float | None:
    """By the time of the last step, without evaluations and checkpoints; None where no step is under way."""
    last_s = run.metrics.get("seconds")
    return last_s * (run.steps - run.step) if run.status is RunStatus.RUNNING and last_s is not None else None


def remedy(category: str) -> str:
    return _REMEDIES[category]


def prompt(rollout: Rollout) -> str:
    """What was asked: the text, or the messages one under another, or else the ids."""
    match rollout.prompt:
        case None:
            return " ".join(map(str, rollout.prompt_ids.tolist()))
        case str(text):
            return text
        case messages:
            return "\n\n".join(f"{each.get('role')}: {each.get('content')}" for each in messages)
