"""`python -m tutelage.coordinator`: serve the coordinator until it is told to stop."""

from __future__ import annotations

import sys

from pydantic import ValidationError
from pydantic_settings import CliApp
from sqlalchemy.exc import ArgumentError, DBAPIError

from tutelage.coordinator.app import build_app
from tutelage.coordinator.db import Database
from tutelage.coordinator.keys import in_files
from tutelage.coordinator.launchers import Launcher, open_launcher
from tutelage.coordinator.settings import Settings
from tutelage.queue.base import Queue
from tutelage.serving import serve
from tutelage.telemetry import configure_logging
from tutelage.tracing.export import exported
from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain


def main(argv: list[str] | None = None) -> None:
    try:
        settings = CliApp.run(Settings, cli_args=sys.argv[1:] if argv is None else argv)
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        database = Database(settings.database)
        queue = settings.open_queue()
        launcher = open_launcher(settings)
        in_files(settings.key_files)  # read again by the app; what cannot be used is said before anything is opened
    except ValidationError as error:
        sys.exit(f"tutelage.coordinator: {explain(error)[0]}")
    except (InvalidInput, ArgumentError) as error:
        sys.exit(f"tutelage.coordinator: {error}")
    except OSError as error:
        sys.exit(
            f"tutelage.coordinator: cannot use the data directory {error.filename}: {error.strerror}; give --data-dir"
        )
    configure_logging("coordinator")
    with exported("coordinator"):
        work(settings, database, queue, launcher)


def work(settings: Settings, database: Database, queue: Queue | None, launcher: Launcher | None) -> None:
    """Serve; who cannot ends with a sentence."""
    try:
        app = build_app(settings, database, queue, launcher)
    except InvalidInput as error:
        sys.exit(f"tutelage.coordinator: {error}")
    except DBAPIError as error:  # no answer, no such user, or one who may not make tables
        reason = str(error.orig).splitlines()[0]
        sys.exit(
            f"tutelage.coordinator: cannot open {database.engine.url!r}: {reason}; start that server, or mend "
            "--database-url, its password or what its user may"
        )
    serve(app, settings.host, settings.port)


if __name__ == "__main__":
    main()
