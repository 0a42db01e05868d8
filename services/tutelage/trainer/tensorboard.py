"""TensorBoard's files, written as they are: records of protocol buffers, of which three small messages are needed.

record     length (uint64), its checksum, the event, its checksum
Event      1 wall_time (double), 2 step, 3 file_version, 5 summary, 7 session_log
Summary    1 value: 1 tag, 2 simple_value (float)
SessionLog 1 status: 1 is START, by which readers drop what an attempt before this one had from that step on
"""

from __future__ import annotations

import errno
import math
import os
import struct
import time
from collections.abc import Iterable, Mapping

from tutelage.trainer.tracking import About

VARINT, DOUBLE, BYTES, FLOAT = 0, 1, 2, 5  # how a field of a protocol buffer is written
LARGEST = 3.4028234663852886e38  # float
POLYNOMIAL = 0x82F63B78  # of CRC-32C, reflected


class EventFile:
    """One attempt at a run in `tensorboard/` beside its checkpoints. Each row is on its way to the disk at once."""

    def __init__(self, about: About) -> None:
        folder = about.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{about.run_id}.e{about.epoch:05d}"
        self._file = (folder / name).open("ab", buffering=0)
        self._add(_text(3, "brain.Event:2"))
        if about.begins_at:
            self._add(_whole(2, about.begins_at + 1) + _nested(7, _whole(1, 1)))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises: OSError: the disk refuses."""
        values = (_nested(1, _text(1, tag) + _single(2, value)) for tag, value in metrics.items())
        self._add(_whole(2, step) + _nested(5, b"".join(values)))

    def close(self) -> None:
        self._file.close()

    def _add(self, fields: bytes) -> None:
        event = _field(1, DOUBLE, struct.pack("<d", time.time())) + fields
        length = struct.pack("<Q", len(event))
        record = b"".join((length, _checksum(length), event, _checksum(event)))
        if self._file.write(record) < len(record):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._file.name)


def _field(number: int, kind: int, content: bytes) -> bytes:
    return _varint(number << 3 | kind) + content


def _whole(number: int, value: int) -> bytes:
    return _field(number, VARINT, _varint(value))


def _nested(number: int, message: bytes) -> bytes:
    return _field(number, BYTES, _varint(len(message)) + message)


def _single(number: int, value: float) -> bytes:
    """What is beyond a float is infinite there."""
    held = math.copysign(math.inf, value) if abs(value) > LARGEST else value
    return _field(number, FLOAT, struct.pack("<f", held))


def _text(number: int, value: str) -> bytes:
    return _nested(number, value.encode())


def _varint(value: int) -> bytes:
    """Seven bits a byte, the low ones first; the eighth says that more follow."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _table() -> Iterable[int]:
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
        yield value


TABLE = tuple(_table())


def _checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and moved on as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
