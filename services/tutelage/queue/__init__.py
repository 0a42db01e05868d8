"""Work in flight between students and teachers: `base` is the contract, `open_queue` picks an implementation."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tutelage.queue.base import Answer, DeadLetter, Delivery, Depth, Failure, Job, Put, Queue, QueueLimits
from tutelage.queue.memory import MemoryQueue
from tutelage_client.client import read_key
from tutelage_client.errors import InvalidInput

__all__ = [
    "Answer",
    "DeadLetter",
    "Delivery",
    "Depth",
    "Failure",
    "Job",
    "MemoryQueue",
    "Put",
    "Queue",
    "QueueLimits",
    "open_queue",
]


def open_queue(
    url: str,
    limits: QueueLimits = QueueLimits(),  # noqa: B008 - frozen
    password_file: Path | None = None,
) -> Queue:
    """The queue behind `url`: redis://, rediss:// or valkey:// for a server, memory:// for a new one in this process.

    password_file: a file that holds the password of the URL's user and nothing else
    No connection is made yet; calls raise `ServiceUnreachable` when the server does not answer.

    Raises:
        InvalidInput: another scheme, not a URL, or a password that cannot be read or is in the URL too.
    """
    scheme = urlsplit(url).scheme
    password = None if password_file is None else read_key(password_file)
    if password is not None and urlsplit(url).password is not None:
        raise InvalidInput("the queue's URL holds a password and redis-password-file another; leave it out of the URL")
    if scheme == "memory":
        return MemoryQueue(limits)
    if scheme not in ("redis", "rediss", "valkey"):
        raise InvalidInput(
            f"the queue's URL has scheme {scheme!r}; use redis://, rediss:// or valkey://HOST:PORT/DB, or memory://"
        )
    from tutelage.queue.redis import RedisQueue  # redis is an extra: only who talks to a server needs it

    try:
        return RedisQueue(url, limits, password)
    except ValueError as error:
        raise InvalidInput(f"the queue's URL cannot be read: {error}; use {scheme}://HOST:PORT/DB") from error
