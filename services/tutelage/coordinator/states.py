"""The life of a run, as data. Nothing else decides which status may follow which, and what its owner may ask when."""

from __future__ import annotations

from enum import StrEnum

from tutelage_client.wire import RunStatus

_S = RunStatus
_AWAY = frozenset({_S.PAUSING, _S.CANCELLING, _S.RECOVERING, _S.FAILED})

# A trainer reports what it does, not every step to it: it may skip forward, never back.
TRANSITIONS: dict[RunStatus, frozenset[RunStatus]] = {
    _S.QUEUED: frozenset({_S.STARTING, _S.PAUSED, _S.CANCELLED, _S.FAILED}),
    _S.STARTING: _AWAY | {_S.VALIDATING, _S.RUNNING, _S.FINALIZING},
    _S.VALIDATING: _AWAY | {_S.RUNNING, _S.FINALIZING},
    _S.RUNNING: _AWAY | {_S.FINALIZING},
    _S.FINALIZING: _AWAY | {_S.SUCCEEDED},
    _S.PAUSING: frozenset({_S.RUNNING, _S.FINALIZING, _S.PAUSED, _S.CANCELLING, _S.RECOVERING, _S.FAILED}),
    _S.PAUSED: frozenset({_S.QUEUED, _S.CANCELLED, _S.FAILED}),
    _S.RECOVERING: frozenset({_S.QUEUED, _S.PAUSED, _S.CANCELLED, _S.FAILED}),
    _S.CANCELLING: frozenset({_S.CANCELLED, _S.FAILED}),
    _S.SUCCEEDED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}

# In these a worker holds the lease; in all others nobody does.
LEASED = frozenset({_S.STARTING, _S.VALIDATING, _S.RUNNING, _S.PAUSING, _S.FINALIZING, _S.CANCELLING})

# The last status before an end, passed through when a worker reports the end without having reported it.
BEFORE = {_S.SUCCEEDED: _S.FINALIZING, _S.PAUSED: _S.PAUSING, _S.CANCELLED: _S.CANCELLING}


def path(now: RunStatus, to: RunStatus) -> tuple[RunStatus, ...]:
    """What to move through to get from `now` to the end `to` of an attempt."""
    return (to,) if to in TRANSITIONS[now] else (BEFORE[to], to)


class Verb(StrEnum):
    """What an owner asks of a run."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FORK = "fork"


_GOES_ON = frozenset(status for status in RunStatus if not status.final)
# The statuses in which each may be asked. Asking for what is so already changes nothing.
ALLOWED: dict[Verb, frozenset[RunStatus]] = {
    Verb.PAUSE: _GOES_ON - {_S.CANCELLING},
    Verb.RESUME: _GOES_ON - {_S.CANCELLING},
    Verb.CANCEL: _GOES_ON | {_S.CANCELLED},
    Verb.FORK: frozenset(RunStatus),  # at any of its checkpoints that is there
}


def allowed(status: RunStatus) -> list[Verb]:
    """What may be asked of a run in this status."""
    return [verb for verb, statuses in ALLOWED.items() if status in statuses]
