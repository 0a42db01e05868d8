"""Tokens as text: how each of them is spelt where it stands, and where it begins in the whole text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from tutelage.engines import Tokenizer

UNFINISHED = "\ufffd"  # what a decoder shows for bytes that do not make a character yet


class Speller:
    """Spells tokens; names of tokens out of context are remembered."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._names: dict[int, str] = {}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds to those before it. A character of several tokens belongs to the last."""
        pieces, first, done = [], 0, 0
        for end in range(1, len(ids) + 1):
            before, now = self._tokenizer.decode(ids[first:done]), self._tokenizer.decode(ids[first:end])
            if now.endswith(UNFINISHED) and end < len(ids):
                pieces.append("")
                continue
            pieces.append(now[len(before) :])
            first, done = done, end  # one token of context is enough for a decoder that joins words
        return pieces

    def shown(self, ids: Sequence[int], pieces: Iterable[str]) -> list[str]:
        """The pieces as they stand in a text, which leaves out special tokens."""
        return ["" if i in self._tokenizer.special_ids else p for i, p in zip(ids, pieces, strict=True)]

    def name(self, token_id: int, after: int) -> str:
        """How a token would be spelt behind `after`; remembered from the first time."""
        if token_id not in self._names:
            before, both = self._tokenizer.decode([after]), self._tokenizer.decode([after, token_id])
            self._names[token_id] = both[len(before) :]
        return self._names[token_id]


def offsets(pieces: Iterable[str], text: str) -> list[int]:
    """Where each piece begins in the text that they make; never behind the end of one that was cut."""
    starts = itertools.accumulate(map(len, pieces), initial=0)
    return [min(start, len(text)) for start in starts][:-1]
