"""Says of pairs of mathematical answers whether they are equal. It may take for ever on one such as 9^9^9^9."""

from __future__ import annotations

import logging
from typing import Any

from tutelage.sandbox.launch import limit
from tutelage.sandbox.lines import answer_lines


def main() -> None:
    """Serve until there is no more to read."""
    limit(memory_mb=2048)
    logging.disable()  # the library warns that its own deadline is off
    from math_verify import parse, verify

    def compared(completion: str, reference: str) -> dict[str, Any]:
        formula = reference if "$" in reference or "\\boxed" in reference else f"\\boxed{{{reference}}}"
        wanted = parse(formula, fallback_mode="no_fallback", parsing_timeout=0)
        if not wanted:
            return {"reason": "the reference cannot be read as mathematics"}
        found = parse(completion, parsing_timeout=0)
        equal = verify(wanted, found, timeout_seconds=0, raise_on_error=True)
        return {"equal": equal, "found": str(found[-1])[:200] if found else None}

    answer_lines(compared)
