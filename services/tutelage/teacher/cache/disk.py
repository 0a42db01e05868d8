"""The part of the score cache that outlives a restart: one SQLite file, bounded by the pages that it uses.

An entry carries the sha256 of its key and body; one that does not fit is dropped, never given. A file that SQLite
itself finds damaged is begun anew. Several teachers of one machine may share a file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tutelage.telemetry import describe_error
from tutelage_client.errors import InvalidInput

log = logging.getLogger(__name__)
Result = TypeVar("Result")

_APPLICATION_ID = 0x7475_7463  # in the file's header, so that no other database is ever written to or removed
_TABLES = """
CREATE TABLE IF NOT EXISTS entry (
    key BLOB PRIMARY KEY, body BLOB NOT NULL, checksum BLOB NOT NULL, used_ns INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_used ON entry (used_ns);
CREATE TABLE IF NOT EXISTS teacher (scope BLOB PRIMARY KEY, known_answer TEXT NOT NULL, salt BLOB NOT NULL) STRICT;
"""
_EVICTED_AT_ONCE = 16
_PAGES_BYTES = 8 * 4096  # what a row may take beyond its own bytes, as the trees around it grow
_SAME_NATS = 0.01  # of a known token's log-prob; a false alarm costs the entries, nothing else


class DiskStore:
    """Bodies by key in the file at `path`. Every method blocks, and may be called from any thread.

    max_bytes: of the file's used pages; the write-ahead log beside it adds a few MB
    corrupt: entries, or whole files, that were dropped because they did not hold what was written
    Raises:
        InvalidInput: the file cannot be used.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self.corrupt = 0
        try:
            self._db = self._opened()
        except sqlite3.Error as error:
            if not self._is_ours():
                message = f"the score cache {path} cannot be used: {error}; name another file"
                raise InvalidInput(message, "score_cache_file") from error
            self._db = self._begun_anew(error)
        self.bytes = self._used_bytes()

    def salt(self, scope: bytes, known_answer: Sequence[float | None]) -> bytes:
        """What keys of the teacher `scope` are made with: new where it answers the known question otherwise by now."""
        fresh = secrets.token_bytes(16)
        return self._safely(lambda: self._salt(scope, known_answer, fresh), fresh)

    def get(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The bodies that are there."""
        return self._safely(lambda: {key: body for key in keys if (body := self._read(key)) is not None}, {})

    def put(self, bodies: Mapping[bytes, bytes]) -> None:
        """Keep the bodies, making room by those that were used longest ago."""
        self._safely(lambda: self._write(bodies), None)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _safely(self, work: Callable[[], Result], otherwise: Result) -> Result:
        """`work` in one transaction; a disk that fails costs the cache, never the answer."""
        with self._lock:
            try:
                return self._in_transaction(work)
            except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:  # full, locked, or closed meanwhile
                log.warning("the score cache's file was not used", extra=describe_error(error))
                return otherwise
            except sqlite3.DatabaseError as error:
                self._db.close()
                self._db = self._begun_anew(error)
                return self._in_transaction(work)

    def _in_transaction(self, work: Callable[[], Result]) -> Result:
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            done = work()
        self.bytes = self._used_bytes()
        return done

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        (found,) = db.execute("PRAGMA application_id").fetchone()
        if found != _APPLICATION_ID and db.execute("SELECT count(*) FROM sqlite_schema").fetchone() != (0,):
            raise sqlite3.DatabaseError("it is another program's database")
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_TABLES)
        return db

    def _is_ours(self) -> bool:
        """Whether the header of the file, damaged as it is, has our name in it."""
        if not self._path.is_file():
            return False
        with self._path.open("rb") as file:
            header = file.read(100)
        return header[:15] == b"SQLite format 3" and int.from_bytes(header[68:72], "big") == _APPLICATION_ID

    def _begun_anew(self, error: sqlite3.Error) -> sqlite3.Connection:
        log.warning("the score cache's file is damaged and begun anew", extra=describe_error(error))
        self.corrupt += 1
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        return self._opened()

    def _salt(self, scope: bytes, known_answer: Sequence[float | None], fresh: bytes) -> bytes:
        row = self._db.execute("SELECT known_answer, salt FROM teacher WHERE scope = ?", (scope,)).fetchone()
        if row is not None and _agree(json.loads(row[0]), known_answer):
            return row[1]
        if row is not None:
            log.warning("the teacher answers otherwise than when its scores were cached; they are not used")
        self._db.execute(
            "INSERT OR REPLACE INTO teacher VALUES (?, ?, ?)", (scope, json.dumps(list(known_answer)), fresh)
        )
        return fresh

    def _read(self, key: bytes) -> bytes | None:
        row = self._db.execute("SELECT body, checksum FROM entry WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        body, checksum = row
        if checksum != _checksum(key, body):
            log.warning("a damaged entry of the score cache is dropped")
            self.corrupt += 1
            self._db.execute("DELETE FROM entry WHERE key = ?", (key,))
            return None
        self._db.execute("UPDATE entry SET used_ns = ? WHERE key = ?", (time.time_ns(), key))
        return body

    def _write(self, bodies: Mapping[bytes, bytes]) -> None:
        for key, body in bodies.items():
            if self._make_room(len(body)):
                row = (key, body, _checksum(key, body), time.time_ns())
                self._db.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", row)

    def _make_room(self, size: int) -> bool:
        """Whether `size` bytes fit by now. Nothing leaves for a body that would take more than half of the file."""
        if 2 * size > self._max_bytes:
            return False
        while self._used_bytes() + size + _PAGES_BYTES > self._max_bytes:
            if not self._evict():
                return False
        return True

    def _evict(self) -> int:
        """Entries that left."""
        oldest = "SELECT key FROM entry ORDER BY used_ns LIMIT ?"
        return self._db.execute(f"DELETE FROM entry WHERE key IN ({oldest})", (_EVICTED_AT_ONCE,)).rowcount  # noqa: S608

    def _used_bytes(self) -> int:
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def _checksum(key: bytes, body: bytes) -> bytes:
    return hashlib.sha256(key + body).digest()


def _agree(before: Sequence[float | None], now: Sequence[float | None]) -> bool:
    """None is -inf."""
    return len(before) == len(now) and all(
        a == b or (a is not None and b is not None and abs(a - b) <= _SAME_NATS)
        for a, b in zip(before, now, strict=True)
    )
