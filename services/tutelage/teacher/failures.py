"""What a caller learns when the engine fails: whose fault it was, and never the engine's own words by accident."""

from __future__ import annotations

import logging

from tutelage.engines.upstream.failures import UpstreamAway, UpstreamFailed, UpstreamRefused
from tutelage.rewards.judging import NotTaken
from tutelage.telemetry import describe_error
from tutelage_client.errors import BadScores, InvalidInput, TutelageError

log = logging.getLogger(__name__)

_ABOUT_THE_REQUEST = (400, 413, 422)  # and not about the key or the model's name


class EngineFailed(TutelageError):
    """The engine raised; its own words are in the log, not here."""


class EngineAway(EngineFailed):
    """The upstream behind the engine could not be reached for as long as it waits; this may pass."""


class EngineRefused(EngineFailed, NotTaken):
    """The upstream does not take this request; nothing is wrong with the engine."""


def told(error: Exception) -> TutelageError:
    """What the caller learns of an engine's failure; the log has the rest."""
    if isinstance(error, BadScores | InvalidInput):
        return error
    if isinstance(error, UpstreamAway):
        return EngineAway(str(error))
    if isinstance(error, UpstreamRefused) and error.status in _ABOUT_THE_REQUEST:
        return EngineRefused(str(error))
    if isinstance(error, UpstreamFailed):
        return EngineFailed(str(error))
    log.error("the engine failed", extra=describe_error(error))
    return EngineFailed(f"the engine failed with {type(error).__name__}; the teacher's log has the reason")
