"""The part of the score cache that is in this process."""

from __future__ import annotations

from collections import OrderedDict

_ENTRY_BYTES = 200  # of Python, beside key and body


class MemoryStore:
    """Bodies by key, at most `max_bytes` of them; who was used longest ago leaves first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self.bytes = 0

    def get(self, key: bytes) -> bytes | None:
        if key in self._bodies:
            self._bodies.move_to_end(key)
        return self._bodies.get(key)

    def put(self, key: bytes, body: bytes) -> None:
        """Keep `body`, unless it is larger than all that may be kept."""
        size = _size(key, body)
        if size > self._max_bytes:
            return
        if (before := self._bodies.pop(key, None)) is not None:
            self.bytes -= _size(key, before)
        while self.bytes + size > self._max_bytes:
            self.bytes -= _size(*self._bodies.popitem(last=False))
        self._bodies[key] = body
        self.bytes += size


def _size(key: bytes, body: bytes) -> int:
    return len(key) + len(body) + _ENTRY_BYTES
