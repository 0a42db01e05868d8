"""Bearer keys of a standalone teacher: it knows their sha256 only, and what each may do, how fast, and for how much."""

from __future__ import annotations

import hashlib
import hmac
import re
import tomllib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain
from tutelage_client.wire import Message
from tutelage_client.wire.forms import SHA256, SHORT_NAME

_DIGEST = r"[0-9a-f]{64}"


class Scope(StrEnum):
    """What a key may be used for. Describing the teacher, and one's own usage, needs none."""

    SCORE = "score"
    GENERATE = "generate"
    REWARD = "reward"


class Key(Message):
    """One caller. What is left out is not limited."""

    name: str = Field(pattern=SHORT_NAME, description="in metrics, logs and sentences")
    sha256: str = Field(pattern=SHA256, description="of the key, in hex")
    scopes: frozenset[Scope] = Field(default=frozenset(Scope), description="what it may be used for")
    requests_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="requests a second")
    tokens_per_s: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="tokens a second, as asked for: written ones at their most"
    )
    budget_tokens: int | None = Field(default=None, ge=0, description="forward plus generated tokens, ever")
    budget_usd: float | None = Field(default=None, ge=0, le=1e6, description="dollars, ever; needs prices")


class _KeysFile(Message):
    keys: tuple[Key, ...]


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys in a TOML file of `[[keys]]` tables, or in one of a sha256 in hex a line, which limits nobody.

    Raises:
        InvalidInput: not readable, something in it is wrong, one key or name twice, or no key at all.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"cannot read the keys file {path}: {error}") from error
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    keys = _tables(path, text) if any(line.startswith("[") for line in lines) else _digests(path, lines)
    if not keys:
        raise InvalidInput(f"the keys file {path} holds no key, so nobody could call; add a sha256 or leave it out")
    for field in ("name", "sha256"):
        values = [getattr(key, field) for key in keys]
        if twice := {value for value in values if values.count(value) > 1}:
            raise InvalidInput(f"{path} has the {field} {min(twice)!r} twice; give each key its own")
    return keys


def find_key(keys: Sequence[Key], authorization: str) -> Key | None:
    """The key that an Authorization header carries, if it is one of `keys`."""
    scheme, _, secret = authorization.partition(" ")
    digest = hashlib.sha256(secret.strip().encode()).hexdigest()
    # Every digest is compared, so that time tells nothing of which one was near.
    found = [key for key in keys if hmac.compare_digest(digest, key.sha256)]
    return found[0] if found and scheme.lower() == "bearer" else None


def _tables(path: Path, text: str) -> tuple[Key, ...]:
    try:
        return _KeysFile.model_validate(tomllib.loads(text)).keys
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    except ValidationError as error:
        raise InvalidInput(f"{path}: {explain(error)[0]}") from error


def _digests(path: Path, lines: Sequence[str]) -> tuple[Key, ...]:
    """Such a key is called by the first digits of its digest."""
    wrong = [i for i, line in enumerate(lines, 1) if line and not re.fullmatch(_DIGEST, line.lower())]
    if wrong:
        raise InvalidInput(f"{path} line {wrong[0]} is not a sha256 in hex; write the digest of a key, not the key")
    return tuple(Key(name=line[:12].lower(), sha256=line.lower()) for line in lines if line)
