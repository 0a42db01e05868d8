"""OpenAI's `echo` with `logprobs`: the prompt's tokens as texts, with the log-prob of each and of the best k."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from tutelage.engines.upstream.asked import Asked, Ids, Logprobs, logprobs_of
from tutelage_client.errors import BadScores


class TokenTexts:
    """Which id a server means by a text: `token_id:N` says it, else the text must belong to one id alone."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def id_of(self, text: str) -> int:
        """Raises: BadScores where the text is that of several ids, or of none."""
        if named := re.fullmatch(r"token_id:(\d+)", text):
            return int(named[1])
        found = self._known().get(text, [])
        if len(found) != 1:
            meant = "no id" if not found else f"{len(found)} ids"
            raise BadScores(f"the upstream speaks of a token {text!r}, which is {meant} of the tokenizer in --model")
        return found[0]

    def is_id(self, text: str, token_id: int) -> bool:
        """Whether a text can be that of this id."""
        named = re.fullmatch(r"token_id:(\d+)", text)
        return int(named[1]) == token_id if named else token_id in self._known().get(text, [])

    def _known(self) -> dict[str, list[int]]:
        if not self._ids:
            for i in sorted(set(self._tokenizer.get_vocab().values())):
                self._ids.setdefault(self._tokenizer.decode([i]), []).append(i)
        return self._ids


def read_echo(logprobs: Any, asked: Asked, k: int, texts: TokenTexts) -> tuple[Ids, Logprobs, Logprobs]:
    """As `prompt_logprobs.read_prompt_logprobs`. One token was written after the prompt, and is left out.

    Raises:
        BadScores: another number of tokens, another token, fewer entries, or a text that names no single id.
    """
    if not isinstance(logprobs, dict):
        raise BadScores("the upstream gave no log-probs with echo; it does not score prompts")
    tokens, own = logprobs.get("tokens") or [], logprobs.get("token_logprobs") or []
    best = logprobs.get("top_logprobs") or []
    n = len(asked.token_ids)
    if not n <= len(tokens) <= n + 1 or not len(tokens) == len(own) == len(best):
        raise BadScores(
            f"the upstream echoed {len(tokens)} tokens of {n}: it ignored echo, or cut the text otherwise", "length"
        )
    for text, token_id in zip(tokens[asked.start : n], asked.token_ids[asked.start :], strict=True):
        if not texts.is_id(text, token_id):
            raise BadScores(f"the upstream scored a token {text!r} where {token_id} was given", "mismatch")
    rows = [
        _entries(row, text, float(value), k)
        for row, text, value in zip(best[asked.start : n], tokens[asked.start : n], own[asked.start : n], strict=True)
    ]
    ids = np.array([[texts.id_of(text) for text, _ in row] for row in rows], dtype=np.int64)
    return ids, logprobs_of([[value for _, value in row] for row in rows]), logprobs_of(own[asked.start : n])


def read_echoed_texts(logprobs: Any, asked: Asked) -> list[str | None]:
    """The text of each scored token, None where it is named by id. Raises: BadScores: fewer tokens came back."""
    tokens = (logprobs.get("tokens") or []) if isinstance(logprobs, dict) else []
    if len(tokens) < len(asked.token_ids):
        raise BadScores(f"the upstream echoed {len(tokens)} tokens of {len(asked.token_ids)}", "length")
    texts = tokens[asked.start : len(asked.token_ids)]
    return [None if re.fullmatch(r"token_id:\d+", text) else text for text in texts]


def _entries(row: Any, own: str, own_logprob: float, k: int) -> list[tuple[str, float]]:
    """The k best of a row; some servers add the token itself as one more."""
    if not isinstance(row, dict):
        raise BadScores("the upstream left out the top_logprobs of a row")
    entries = sorted(row.items(), key=lambda entry: -entry[1])
    if len(entries) == k + 1 and row.get(own) == own_logprob:
        entries = [entry for entry in entries if entry[0] != own]
    if len(entries) != k:
        raise BadScores(f"the upstream gave {len(entries)} top_logprobs a row, asked were {k}", "length")
    return entries
