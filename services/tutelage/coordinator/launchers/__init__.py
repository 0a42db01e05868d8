"""Trainers started by the coordinator itself, one launch an attempt."""

from tutelage.coordinator.launchers.base import (
    TOLD,
    Launch,
    Launcher,
    LaunchFailed,
    LaunchStatus,
    how_it_ended,
)
from tutelage.coordinator.launchers.opening import open_launcher

__all__ = ["TOLD", "Launch", "LaunchFailed", "LaunchStatus", "Launcher", "how_it_ended", "open_launcher"]
