"""The loop of a process that answers questions, a JSON line each, of which any may take for ever.

The time of a question is CPU time, so that a busy machine is nobody's fault: once it is spent the kernel ends the
process by SIGPROF, whatever it is in the middle of.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from typing import Any


def answer_lines(answer: Callable[..., dict[str, Any]]) -> None:
    """Until there is no more to read. A line in is [seconds, *arguments]; the first line out says that it is ready."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    print("{}", flush=True)
    for line in sys.stdin:
        timeout_s, *arguments = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
        try:
            said = answer(*arguments)
        except MemoryError:
            raise  # out of the process: the next one has all of its memory
        except Exception as error:  # noqa: BLE001 - any of a large library's
            said = {"outcome": "failed", "reason": f"it failed with {type(error).__name__}"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(said), flush=True)
