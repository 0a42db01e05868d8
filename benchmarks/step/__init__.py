"""One whole on-policy step: the real services against TRL's DistillationTrainer, on the same models and objective.

Ours is a run on `tutelage.standalone`'s stack: coordinator over HTTP, Valkey, one teacher and one trainer process. TRL
holds student and teacher in one process. Both sample, score, learn and log.

Fairness. Both sides stay warm from the first block to the last and never run at the same time: TRL's worker waits for
its next command, and all of our processes are stopped (SIGSTOP) while it works and continued (SIGCONT) for our turn. A
block lasts a few seconds, far less than the 20 seconds after which a lease, a heartbeat or a teacher's registration
would count as lost. Pausing through the API instead would cost a process start a block, which is no part of a step.

Our step's time is the distance between two consecutive `metrics` events by the coordinator's clock: all of a step is in
it, reporting included. Steps that a stop cut are left out. TRL's is the distance between two `on_step_end` callbacks.

Threads. Ours: two processes that compute, one thread each on two cores, which is what `tutelage up` chooses. TRL: one
process, once with a thread for every core, which is torch's own choice, and once with one thread, since models as small
as these may gain nothing from a second one.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import Cell, interval
from benchmarks.step.blocks import Block
from benchmarks.step.first_step import FirstStep, agree, reference, written
from benchmarks.step.ours import ours
from benchmarks.step.theirs import HINT, available, config, theirs, version
from tutelage_client.spec import RunSpec, load_spec

SKILL = Path(__file__).parents[2] / "examples" / "skill"
TEACHER = SKILL / "teacher"


class Plan(NamedTuple):
    """pairs: blocks of each side; steps: of a block, at least."""

    pairs: int
    steps: int


FULL, SHORT = Plan(pairs=6, steps=4), Plan(pairs=2, steps=3)


def step(*, short: bool) -> list[Cell]:
    """The cells; ours alone where `--short` is asked or TRL is not installed."""
    with_peer = not short and available()
    if not (short or with_peer):
        print(HINT)
    spec = load_spec(SKILL / "opd.toml")
    with tempfile.TemporaryDirectory(prefix="tutelage-step-") as folder:
        return asyncio.run(measured(SHORT if short else FULL, spec, Path(folder), with_peer=with_peer))


async def measured(plan: Plan, spec: RunSpec, folder: Path, *, with_peer: bool) -> list[Cell]:
    rollouts = written(spec)
    known = reference(spec.student.model, TEACHER, rollouts)
    async with ours(folder / "stack", TEACHER, spec) as mine:
        own = await mine.first_step(rollouts)
        await mine.begin()
        await mine.block(plan.steps)  # does not count
        if not with_peer:
            return [alone([await mine.block(plan.steps) for _ in range(plan.pairs)], own, known)]
        cells: list[Cell] = []
        for threads in sorted({1, os.cpu_count() or 1}):
            async with theirs(folder, spec, TEACHER, threads) as other:
                first, same = await other.first_step(rollouts)
                equal = same and agree(own, known) and agree(first, known) and agree(own, first)
                await other.block(plan.steps)  # does not count
                pairs = [(await mine.block(plan.steps), await other.block(plan.steps)) for _ in range(plan.pairs)]
            cells += compared(pairs, peer(spec, threads), equal, losses(own, known, first))
        return cells


def peer(spec: RunSpec, threads: int) -> dict[str, Any]:
    return {
        "name": f"TRL, {threads} thread" + ("s" if threads > 1 else ""),
        "version": version(),
        "settings": config(spec) | {"threads": threads},
    }


def alone(blocks: list[Block], own: FirstStep, known: FirstStep) -> Cell:
    """Our side, held against the loss written out."""
    return Cell(
        cell="step",
        peer=None,
        ours=1000 * statistics.median(s for block in blocks for s in block.seconds),
        equal=agree(own, known),
        counted=counted("ours", blocks) | losses(own, known),
    )


def compared(
    pairs: list[tuple[Block, Block]], peer: dict[str, Any], equal: bool, first: dict[str, float]
) -> list[Cell]:
    """The time of a step, and of as many steps as write 1000 tokens, since the two sides write unequal texts."""
    mine, other = [ours for ours, _ in pairs], [theirs for _, theirs in pairs]
    figures = counted("ours", mine) | counted("theirs", other) | first
    return [
        Cell(
            cell=name,
            peer=peer,
            ours=statistics.median(map(time_ms, mine)),
            theirs=statistics.median(map(time_ms, other)),
            ratio=statistics.median(ratios := [time_ms(theirs) / time_ms(ours) for ours, theirs in pairs]),
            ci=interval(ratios),
            equal=equal,
            counted=figures,
        )
        for name, time_ms in (("step", step_ms), ("1000 tokens", thousand_tokens_ms))
    ]


def step_ms(block: Block) -> float:
    return 1000 * statistics.median(block.seconds)


def thousand_tokens_ms(block: Block) -> float:
    return 1e6 * sum(block.seconds) / sum(block.tokens)


def counted(side: str, blocks: list[Block]) -> dict[str, float]:
    """Steps, tokens, tokens a second, processor milliseconds a step, and what the time of a step went to."""
    tokens = sum(sum(block.tokens) for block in blocks)
    seconds = sum(sum(block.seconds) for block in blocks)
    parts = {name: statistics.median(block.parts_s[name] for block in blocks) for name in blocks[0].parts_s}
    return {
        f"steps_{side}": sum(len(block.seconds) for block in blocks),
        f"tokens_{side}": tokens,
        f"tokens_per_s_{side}": round(tokens / seconds, 1),
        f"cpu_ms_per_step_{side}": round(1000 * statistics.median(block.cpu_s for block in blocks), 1),
    } | {f"{name}_ms_{side}": round(1000 * part_s, 1) for name, part_s in parts.items()}


def losses(own: FirstStep, known: FirstStep, first: FirstStep | None = None) -> dict[str, float]:
    """The first step of every side, as it was compared."""
    sides = {"ours": own, "reference": known} | ({"theirs": first} if first else {})
    return {f"first_{name}_{side}": value for side, step in sides.items() for name, value in step._asdict().items()}
