"""A coordinator whose database has gone away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

from tutelage.coordinator.db import Database


@contextmanager
def cut_off(database: Database, admin_url: Callable[[], str]) -> Iterator[None]:
    """The database cannot be reached within the block: its file is away, or the server refuses it."""
    url = database.engine.url
    if url.get_backend_name() == "sqlite":
        database.close()
        path = Path(str(url.database))
        path.parent.rename(path.parent.with_name("away"))
        yield
        path.parent.with_name("away").rename(path.parent)
        return
    admin = create_engine(admin_url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false"))
        here = {"name": url.database}
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"), here)
        yield
        connection.execute(text(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true"))
    admin.dispose()
