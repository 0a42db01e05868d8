"""docs/reference/states.md: the life of a run, from its table."""

from __future__ import annotations

from docs.generate.markdown import code, table

from tutelage.coordinator.states import LEASED, TRANSITIONS, allowed
from tutelage_client.wire import RunStatus

INTRO = """# The life of a run

A run is in one of these statuses, and goes from one to another along these arrows alone; the coordinator refuses
everything else, whoever asks. A trainer reports what it does, not every step to it, so it may skip forward.
"""
ASKED = """
## By status

Whoever asks for what a status does not allow is answered 409 `run_is_final` or `run_is_cancelling`, and `allowed` lists
what it does. With `trainer`, a trainer holds the run's lease; one that goes silent loses it, and the run is recovering.
"""


def states_page() -> str:
    rows = [
        [
            code(status),
            "yes" if status in LEASED else "",
            ", ".join(map(code, _in_order(TRANSITIONS[status]))) or "none: it has ended",
            ", ".join(map(code, allowed(status))),
        ]
        for status in TRANSITIONS
    ]
    head = ("status", "trainer", "may become", "its owner may ask for")
    return f"{INTRO}\n```mermaid\n{_diagram()}\n```\n{ASKED}\n{table(head, rows)}"


def _diagram() -> str:
    arrows = [(str(status), str(to)) for status, onward in TRANSITIONS.items() for to in _in_order(onward)]
    begins = [("[*]", str(next(iter(TRANSITIONS))))]
    ends = [(str(status), "[*]") for status, onward in TRANSITIONS.items() if not onward]
    return "\n".join(["stateDiagram-v2", *(f"    {here} --> {there}" for here, there in begins + arrows + ends)])


def _in_order(statuses: frozenset[RunStatus]) -> list[RunStatus]:
    return [status for status in TRANSITIONS if status in statuses]
