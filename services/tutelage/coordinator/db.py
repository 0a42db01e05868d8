"""The database: one engine, two kinds of transaction, its clock, and the schema brought up to date.

SQLite by default, PostgreSQL by URL; everything that differs between them is in this file.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Double, Engine, Executable, create_engine, event, inspect, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from tutelage.coordinator.tables import Base
from tutelage_client.errors import InvalidInput

_MIGRATING = 7_834_225  # of `hold`: any numbers that no other program on this server takes
REGISTERING = 7_834_226
_CONNECT_S = 10  # a server that says nothing, not even no, is given up then, unless the URL has another number
_HELD = text("SELECT pg_advisory_xact_lock(:what)")
_REVISION = text("SELECT version_num FROM alembic_version")
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


class now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock in seconds since 1970. Leases are measured by it alone."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


class Database:
    """Transactions over one connection pool, for use from many threads.

    Raises:
        InvalidInput: the URL is neither SQLite's nor PostgreSQL's.
    """

    def __init__(self, url: str | URL) -> None:
        self.engine = _engine(url)
        self._writing = self.engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self.engine) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Committed at the end of the block, rolled back on an error."""
        with Session(self._writing) as session, session.begin():
            yield session

    def migrate(self) -> str:
        """Bring the schema to the newest revision, and say which; safe to call from several processes at once.

        Raises:
            InvalidInput: a newer release has migrated it.
        """
        with self._writing.begin() as connection:
            hold(connection, _MIGRATING)
            config = alembic_config(connection)
            known = [each.revision for each in ScriptDirectory.from_config(config).walk_revisions()]  # newest first
            found = connection.scalar(_REVISION) if inspect(connection).has_table("alembic_version") else None
            if found is not None and found not in known:
                raise InvalidInput(
                    f"the database has the schema {found} of a newer release, and this one knows none after "
                    f"{known[0]}; start that release, or restore a backup from before it",
                    "database_url",
                )
            command.upgrade(config, "head")
        return known[0]

    def revision(self) -> str | None:
        """Of the schema as it is now. Raises: SQLAlchemyError: the database does not answer, or has no schema."""
        with self.read() as session:
            return session.scalar(_REVISION)

    def close(self) -> None:
        self.engine.dispose()


def hold(connection: Connection, what: int) -> None:
    """Until this transaction ends, others that ask for the same wait. Writers of SQLite always wait for each other."""
    if connection.dialect.name == "postgresql":
        connection.execute(_HELD, {"what": what})


def alembic_config(connection: Connection) -> Config:
    """Alembic over an open connection, with the migrations that ship in this package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def put_new(session: Session, table: type[Base], **values: Any) -> bool:
    """Insert a row unless one with the same unique key is there; says whether it was inserted."""
    statement = _INSERT[session.get_bind().dialect.name](table).values(**values).on_conflict_do_nothing()
    inserted = session.execute(statement.returning(*inspect(table).primary_key)).first()
    return inserted is not None


def put(session: Session, table: type[Base], keys: Sequence[str], **values: Any) -> None:
    """Insert a row, or overwrite the one with the same `keys`."""
    timed = tuple(name for name, value in values.items() if isinstance(value, now))
    plain = {name: value for name, value in values.items() if name not in timed}
    session.execute(_overwriting(session.get_bind().dialect.name, table, tuple(keys), tuple(plain), timed), plain)


@cache
def _overwriting(
    dialect: str, table: type[Base], keys: tuple[str, ...], plain: tuple[str, ...], timed: tuple[str, ...]
) -> Executable:
    """Made once: to write it takes longer than to run it. timed: columns that become the time of the change"""
    statement = _INSERT[dialect](table.__table__).values(dict.fromkeys(timed, now()))
    changed = {name: statement.excluded[name] for name in (*plain, *timed) if name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def _engine(url: str | URL) -> Engine:
    url = make_url(url)
    backend = url.get_backend_name()
    if backend == "postgresql":
        patience = {} if "connect_timeout" in url.query else {"connect_timeout": _CONNECT_S}
        return create_engine(url, pool_size=10, max_overflow=30, pool_pre_ping=True, connect_args=patience)
    if backend != "sqlite":
        raise InvalidInput(
            f"database-url starts with {backend!r}; give sqlite:///PATH or postgresql+psycopg://HOST/NAME"
        )
    engine = create_engine(url, pool_size=10, max_overflow=30)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver thinks
    connection.execute("PRAGMA busy_timeout = 15000")
    connection.execute("PRAGMA foreign_keys = ON")
    with suppress(sqlite3.OperationalError):  # locked: another connection is switching, and the mode is the file's
        connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that reads first and is then refused could not simply wait."""
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
