"""The schema and the transactions, on both databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from sqlalchemy import inspect, select

from tutelage.coordinator.db import Database, alembic_config, now, put, put_new
from tutelage.coordinator.tables import Base, FileRow
from tutelage_client.errors import InvalidInput


def test_the_migrations_make_exactly_the_tables_of_the_code(database: Database):
    with database.engine.begin() as connection:
        command.check(alembic_config(connection))


def test_the_schema_can_be_taken_down_and_built_again(empty_url: Callable[[], str]):
    database = Database(empty_url())
    database.migrate()
    with database.engine.begin() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.migrate()
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}
    database.close()


def test_processes_that_start_together_migrate_once(empty_url: Callable[[], str]):
    url = empty_url()
    together = threading.Barrier(3)

    def start(_: int) -> None:
        database = Database(url)
        together.wait(10)
        database.migrate()
        database.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, range(3)))
    database = Database(url)
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}
    database.close()


def row(number: int) -> dict[str, object]:
    named = {"id": f"file-{number}", "sha256": str(number), "filename": "f"}
    return {"project": "default", **named, "bytes": number, "created_at": now()}


def test_a_block_that_fails_leaves_nothing(database: Database):
    with pytest.raises(RuntimeError, match="on purpose"), database.write() as session:
        put_new(session, FileRow, **row(1))
        raise RuntimeError("on purpose")
    with database.read() as session:
        assert session.scalars(select(FileRow)).all() == []


def test_a_row_is_new_once_and_can_be_overwritten(database: Database):
    with database.write() as session:
        assert put_new(session, FileRow, **row(1))
        assert not put_new(session, FileRow, **row(1))
        assert not put_new(session, FileRow, **(row(2) | {"sha256": "1"})), "any unique key counts"
        put(session, FileRow, ("project", "id"), **(row(1) | {"bytes": 9}))
    with database.read() as session:
        assert [(each.id, each.bytes) for each in session.scalars(select(FileRow))] == [("file-1", 9)]


def test_many_writers_wait_for_each_other(database: Database):
    def write(number: int) -> bool:
        with database.write() as session:
            session.scalars(select(FileRow)).all()  # reading first is what would deadlock without the early lock
            return put_new(session, FileRow, **row(number))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, range(40)))


def test_the_database_clock_tells_seconds_since_1970(database: Database):
    with database.read() as session:
        first = session.scalars(select(now())).one()
        assert abs(first - time.time()) < 60
        assert session.scalars(select(now())).one() >= first


def test_another_database_is_refused_with_what_is_supported():
    with pytest.raises(InvalidInput, match="sqlite:///PATH or postgresql"):
        Database("mysql://host/name")
