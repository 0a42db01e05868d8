"""Searches texts for regular expressions. A search that backtracks may take for ever."""

from __future__ import annotations

import re
from typing import Any

from tutelage.sandbox.launch import limit
from tutelage.sandbox.lines import answer_lines


def main() -> None:
    """Serve until there is no more to read."""
    limit(memory_mb=512)
    answer_lines(searched)


def searched(pattern: str, text: str) -> dict[str, Any]:
    """Whether the pattern is found, and the text of its first group, where it has one that took part."""
    found = re.search(pattern, text)
    group = found[1] if found is not None and found.re.groups else None
    return {"found": found is not None, "group": group}
