"""Says of pairs of mathematical answers whether they are equal: a JSON line in, a JSON line out.

It may take for ever on an answer such as 9^9^9^9, so whoever asks puts a deadline and kills it.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from tutelage.sandbox.launch import limit

_MEMORY_MB = 2048


def main() -> None:
    """Serve until there is no more to read. The first line out says that it is ready."""
    limit(memory_mb=_MEMORY_MB)
    logging.disable()  # the library warns that its own deadline is off
    from math_verify import parse, verify

    def compared(completion: str, reference: str) -> dict[str, Any]:
        formula = reference if "$" in reference or "\\boxed" in reference else f"\\boxed{{{reference}}}"
        wanted = parse(formula, fallback_mode="no_fallback", parsing_timeout=0)
        if not wanted:
            return {"reason": "the reference cannot be read as mathematics"}
        found = parse(completion, parsing_timeout=0)
        try:
            equal = verify(wanted, found, timeout_seconds=0, raise_on_error=True)
        except MemoryError:
            return {"outcome": "out_of_memory", "reason": f"comparing the answers took over {_MEMORY_MB} MiB of memory"}
        except Exception as error:  # noqa: BLE001 - any of a large library's; the answers were not compared
            reason = f"the answers cannot be compared: {type(error).__name__}"
            return {"outcome": "not_comparable", "reason": reason}
        return {"equal": equal, "found": str(found[-1])[:200] if found else None}

    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(compared(*json.loads(line))), flush=True)
