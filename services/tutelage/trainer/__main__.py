"""`python -m tutelage.trainer`: wait for runs, or execute one with `--run`. Settings are read before torch loads."""

from __future__ import annotations

import asyncio
import sys

from pydantic_settings import CliApp

from tutelage.telemetry import configure_logging
from tutelage.tracing.export import exported
from tutelage.trainer import trackers
from tutelage.trainer.place import Place
from tutelage.trainer.settings import Settings
from tutelage_client.errors import InvalidInput, ProblemResponse


def main() -> int:
    settings = CliApp.run(Settings)
    configure_logging("trainer", settings.log_level)
    with exported("trainer"):
        return work(settings)


def work(settings: Settings) -> int:
    """The exit status."""
    try:
        settings.coordinator_key()
        settings.teacher_key()
        settings.check_device()
        trackers.check(settings.tracker)
        settings.open_queue()  # each attempt opens its own; what it could not use is said before a run is taken
    except InvalidInput as error:
        sys.stderr.write(f"tutelage.trainer: {error}\n")
        return 64
    if settings.run is None and Place.found().size > 1:
        sys.stderr.write("tutelage.trainer: --run: torchrun starts the ranks of one run; name it with --run ID\n")
        return 64
    if settings.run is None:
        from tutelage.trainer.agent import serve

        try:
            asyncio.run(serve(settings))
        except ProblemResponse as error:  # such as a key that may not lease
            sys.stderr.write(f"tutelage.trainer: {settings.coordinator} leases no run to it: {error}\n")
            return 64
        return 0
    from tutelage.trainer.execute import take_part

    return take_part(settings, settings.run)


if __name__ == "__main__":
    sys.exit(main())
