"""What a teacher is asked for diagnostics alone, beside what the loss needs of it."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage_client.spec import RunSpec, signals_watched
from tutelage_client.wire import Capabilities, Signal


@dataclass(frozen=True, slots=True)
class Watched:
    """top_k: where that signal is among them, how many tokens."""

    signals: frozenset[Signal] = frozenset()
    top_k: int | None = None


NOTHING = Watched()


def watched(spec: RunSpec, able: Capabilities) -> Watched:
    """As much of what the run would like to see as a teacher of these capabilities can show."""
    k = min(spec.diagnostics.top_k, able.max_top_k)
    signals = signals_watched(spec) & able.signals - ({Signal.TOP_K} if k == 0 else set[Signal]())
    return Watched(signals, k if Signal.TOP_K in signals else None)


# The metrics that a run has none of where a signal cannot be had.
ABSENT = {
    Signal.TOP_K: "top_k_overlap and the masses on the teacher's most probable tokens",
    Signal.ENTROPY: "teacher_entropy",
}


def absent(spec: RunSpec, teacher: str, able: Capabilities) -> str | None:
    """Which diagnostics the run will lack of this teacher and why, in a sentence; None where it lacks nothing."""
    seen = watched(spec, able)
    lacking = sorted(signals_watched(spec) - seen.signals)
    said = [f"{ABSENT[signal]} are not measured, as it does not return {signal.value}" for signal in lacking]
    if seen.top_k is not None and seen.top_k < spec.diagnostics.top_k:
        said.append(f"top_k_overlap is over {seen.top_k} tokens in place of {spec.diagnostics.top_k}, its most")
    return f"of teacher {teacher!r}: {'; '.join(said)}" if said else None
