"""`tutelage runs check`: which promises a run's own record keeps."""

from __future__ import annotations

import argparse

from tutelage_client.cli import show
from tutelage_client.cli.connect import coordinator
from tutelage_client.history import INVARIANTS, PROMISES, found, other_weights

SHOWN = 3  # violations of one promise; --json has all


async def check(args: argparse.Namespace) -> int:
    """One line a promise that a record can be held to; 1 where one is broken."""
    async with coordinator(args) as client:
        history = await client.run(args.run_id).history()
        other = None if args.like is None else await client.run(args.like).checkpoints()
    violations = {name: found(name, history) for name in INVARIANTS}
    if other is not None:
        violations["I4"] = other_weights(history.checkpoints, other)
    if args.json:
        told = [{"name": n, "promise": PROMISES[n], "holds": not v, "violations": v} for n, v in violations.items()]
        show.document({"run_id": args.run_id, "status": history.run.status, "step": history.run.step, "promises": told})
    else:
        show.say(f"{args.run_id} is", show.styled(history.run.status), f"at step {history.run.step}")
        for name, sentences in violations.items():
            show.say(name, show.styled("broken" if sentences else "holds"), PROMISES[name])
            for sentence in sentences[:SHOWN]:
                show.say("   ", show.clean(sentence))
            if len(sentences) > SHOWN:
                show.say(f"    and {len(sentences) - SHOWN} more; --json has all")
    return 1 if any(violations.values()) else 0
