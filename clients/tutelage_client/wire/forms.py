"""Forms that text on the wire has: each a pattern, with what a refusal says of it."""

from __future__ import annotations

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$"
SHORT_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"  # it is part of a stream's name
TEXT = r"^[^\x00]*$"  # PostgreSQL has no such character
LINE = r"^[^\x00-\x1f\x7f]*$"
SHA256 = r"^[0-9a-f]{64}$"
COMMIT = r"^[0-9a-f]{40}$"
ADDRESS = r"^https?://"
DOOR = r"^https?://[^/]+"
ORIGIN = r"^https?://[^/]+$"

REMEDIES = {
    NAME: "give 1 to 128 letters, digits, dots, dashes and underscores, the first a letter or a digit",
    SHORT_NAME: "give 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or a digit",
    TEXT: "give text without NUL characters",
    LINE: "give text without control characters, such as line breaks",
    SHA256: "give a sha256 in lower-case hex, which has 64 digits",
    COMMIT: "give the hash of a commit in lower-case hex, which has 40 digits; a branch or a tag would move",
    ADDRESS: "give an address that begins with http:// or https://",
    DOOR: "give an address with a host, such as http://127.0.0.1:8100",
    ORIGIN: "give an address with a host and no path, such as https://127.0.0.1:6443",
}
