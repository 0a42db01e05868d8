"""TensorBoard's files of a run, read by another implementation than the one that wrote them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]


def records(path: Path) -> Iterator[bytes]:
    """The records of an event file, their checksums looked at by another implementation."""
    data = path.read_bytes()
    while data:
        head, (size,) = data[:8], struct.unpack("<Q", data[:8])
        record = data[12 : 12 + size]
        for part, checksum in ((head, data[8:12]), (record, data[12 + size : 16 + size])):
            crc = crc32c(part)
            assert struct.unpack("<I", checksum) == (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF,)
        yield record
        data = data[16 + size :]


def events(folder: Path) -> list[Event]:
    """Of all files in the order in which TensorBoard reads them."""
    paths = sorted((folder / "tensorboard").iterdir())
    return [Event.FromString(record) for path in paths for record in records(path)]


def rows(folder: Path) -> list[tuple[int, dict[str, float]]]:
    with_values = (event for event in events(folder) if event.HasField("summary"))
    return [(event.step, {value.tag: value.simple_value for value in event.summary.value}) for event in with_values]
