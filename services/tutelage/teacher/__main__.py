"""`python -m tutelage.teacher`: flags first, the model library only when the engine needs it."""

from __future__ import annotations

import asyncio
import sys

from pydantic import ValidationError
from pydantic_settings import CliApp

from tutelage.engines import open_engine
from tutelage.serving import serve
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage.telemetry import configure_logging
from tutelage.tracing.export import exported
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain


def main() -> None:
    """Serve one teacher until told to stop; what cannot be used ends it with status 2 and a sentence."""
    try:
        settings = CliApp.run(Settings)
        configure_logging("teacher", settings.log_level)
        with exported("teacher"):
            work(settings)
    except ValidationError as error:
        sys.exit(_refused(explain(error)[0]))
    except InvalidInput as error:
        sys.exit(_refused(error.message))


def work(settings: Settings) -> None:
    """Raises ValidationError or InvalidInput where something cannot be used."""
    engine = asyncio.run(open_engine(settings.engine_options(), settings.name))
    queue = settings.open_queue()
    settings.coordinator_key()  # read again to register; what cannot be used is said before anything is served
    app = build_app(settings, engine, queue)
    serve(app, settings.host, settings.port, grace_s=settings.grace_s)


def _refused(sentence: str) -> int:
    sys.stderr.write(f"tutelage.teacher: {sentence}\n")
    return 2


if __name__ == "__main__":
    main()
