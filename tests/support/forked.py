"""Trainers as processes of their own that start at once: forked from one that has imported torch already."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tutelage.trainer.__main__ import main

PRELOADED = ["forked", "tutelage.trainer.execute", "transformers.models.llama.modeling_llama"]


async def trainer(argv: Sequence[str], log: Path, within_s: float) -> int:
    """`python -m tutelage.trainer ARGV` to its end: the exit code, negative for the signal that ended it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_execute, args=(list(argv), log))
    await asyncio.to_thread(process.start)
    try:
        await asyncio.to_thread(process.join, within_s)
        assert process.exitcode is not None, f"the trainer did not end in {within_s:.0f} s"
        return process.exitcode
    finally:
        process.kill()


def _execute(argv: list[str], log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    sys.argv = ["tutelage.trainer", *argv]
    sys.exit(main())
