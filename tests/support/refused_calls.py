"""Grades answers in a process to which the kernel refuses some calls, as container runtimes and old kernels do.

`python refused_calls.py CALL ..`: [code, tests] pairs as JSON on standard input, the rewards as JSON lines out.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

from tutelage.rewards import grade
from tutelage.sandbox.calls import Argument, Call, refuse
from tutelage_client.wire import RewardItem, UnitTests

_NO_NEW_PRIVS = 38
CALLS = {
    "namespaces": Call("unshare", 272, 97),
    "landlock": Call("landlock_create_ruleset", 444, 444),
    "filters": Call("prctl", 157, 167, unless=(Argument(0, 0x10, 0),)),  # what sets one has this bit, others not
}


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    assert refuse(libc, [CALLS[name] for name in sys.argv[1:]])
    pairs = json.loads(sys.stdin.read())
    items = [RewardItem(prompt=str(os.getpid()), completion=code, reference=tests) for code, tests in pairs]
    for reward in grade(UnitTests(timeout_s=5.0), items):
        print(reward.model_dump_json())


if __name__ == "__main__":
    main()
