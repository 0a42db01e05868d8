"""A question through the queue and back, where the answer costs nothing: to a null teacher, and to a real one.

The null teacher answers each job with equal bytes, and nobody reads bodies, as on the other sides: that is the queue.
The teacher is a process with the toy engine that reads a request, scores it and writes a reply, which the client
checks: a question is one completion of 32 tokens behind 32, as a trainer's is, or eight behind one prompt. Beside
both, on the same Valkey and in blocks that take turns: redis-py by hand, which keeps none of our queue's promises,
and a plain taskiq job. Bodies are equally long. Client and worker are one process each on every side. One at a time:
a question is put once the one before it was answered. At once: all are put, all are read.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measure import Cell, interval, load_1min
from benchmarks.processes import PEERS_PYTHON, ROOT, obeying, printing, python, valkey, working
from benchmarks.queue.ours import asked
from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage_client.wire import ScoreReply, TokenScores, Usage, encode_reply, encode_request

HINT = "queue: without taskiq, which `make bench-peers` installs; measured beside redis-py alone"
Tell = Callable[[dict[str, Any]], dict[str, Any]]


class Size(NamedTuple):
    """questions: of a block; blocks: that count, after one of each side that does not"""

    questions: int
    blocks: int


class Side(NamedTuple):
    name: str
    version: str
    tell: Tell


def queue(*, short: bool) -> Iterator[Cell]:
    one, many = (Size(10, 2), Size(200, 1)) if short else (Size(100, 15), Size(2000, 7))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(valkey(folder))
        teacher = python("tutelage.teacher", "--engine", "fake", "--name", "toy", "--port", "0", "--redis-url", url)
        stack.enter_context(printing(teacher, folder / "teacher.log"))
        ours, eight = (
            stack.enter_context(obeying(python("benchmarks.queue.ours", url, str(n)), folder / f"ours-{n}.log"))
            for n in (1, 8)
        )
        alone = beside(stack, folder, url, "alone", python("benchmarks.queue.alone"))
        others = peers(stack, folder, url)
        for whose, tell in (("null teacher", alone), ("teacher", ours)):
            for size, at_once in ((one, False), (many, True)):
                for peer in others:
                    yield cell(whose, size, at_once, tell, peer)
        yield cell("teacher", Size(many.questions // 4, many.blocks), True, eight, None, completions=8)


def peers(stack: ExitStack, folder: Path, url: str) -> list[Side]:
    """Both with a worker and a client of their own."""
    commands = {"redis-py by hand": (version("redis"), python("benchmarks.queue.raw"))}
    if PEERS_PYTHON.exists():
        script = str(Path(__file__).with_name("taskiq_side.py"))
        commands["taskiq"] = (installed("taskiq"), [str(PEERS_PYTHON), script])
    else:
        print(HINT, file=sys.stderr, flush=True)
    found: list[Side] = []
    for name, (release, command) in commands.items():
        short = name.partition(" ")[0]
        found.append(Side(name, f"{short} {release}", beside(stack, folder, url, short, command)))
    return found


def beside(stack: ExitStack, folder: Path, url: str, name: str, command: list[str]) -> Tell:
    """The client of a side without a teacher, whose worker runs, too."""
    lengths = [str(length) for length in bodies()]
    stack.enter_context(working([*command, "worker", url, *lengths], folder / f"{name}-worker.log"))
    return stack.enter_context(obeying([*command, "client", url, *lengths], folder / f"{name}-client.log"))


def cell(whose: str, size: Size, at_once: bool, ours: Tell, peer: Side | None, completions: int = 1) -> Cell:
    """Times are of one completion's score."""
    command = {"questions": size.questions, "at_once": at_once}
    sides = [ours] if peer is None else [ours, peer.tell]
    told: list[list[dict[str, Any]]] = [[] for _ in sides]
    for _ in range(size.blocks + 1):
        for into, tell in zip(told, sides, strict=True):
            into.append(tell(command))
    scores = size.questions * completions
    medians = [[block_ms(each, scores) for each in blocks[1:]] for blocks in told]
    mine_ms, ratios = medians[0], [t / o for o, t in zip(medians[0], medians[-1], strict=True)]
    how = "at once" if at_once else "one at a time"
    return Cell(
        cell=f"{whose}, {how}, jobs of {completions}",
        peer=None if peer is None else {"name": peer.name, "version": peer.version, "settings": {}},
        ours=statistics.median(mine_ms),
        theirs=None if peer is None else statistics.median(medians[1]),
        ratio=None if peer is None else statistics.median(ratios),
        ci=None if peer is None else interval(ratios),
        equal=True,  # each client checks every answer, and ends where one is not whole
        counted=counted(told, size, scores, at_once) | {"load_1min": load_1min()},
    )


def block_ms(told: dict[str, Any], scores: int) -> float:
    """Of a block of single questions the median, of one at once its share of each."""
    return statistics.median(told["ms"]) if len(told["ms"]) > 1 else told["ms"][0] / scores


def counted(told: Sequence[Sequence[dict[str, Any]]], size: Size, scores: int, at_once: bool) -> dict[str, float]:
    found: dict[str, float] = {"questions": size.questions, "blocks": size.blocks}
    for name, blocks in zip(("ours", "theirs"), told, strict=False):
        cpu_ms = statistics.median(block["cpu_ms"] / scores for block in blocks[1:])
        found[f"client_cpu_ms_{name}"] = cpu_ms
        if at_once:
            found[f"scores_per_s_{name}"] = 1e3 / statistics.median(block_ms(block, scores) for block in blocks[1:])
        else:
            every = [ms for block in blocks[1:] for ms in block["ms"]]
            found[f"p90_ms_{name}"] = float(np.quantile(every, 0.9))
    return found


def bodies() -> tuple[int, int]:
    """Bytes of a question and of an answer of ours."""
    request = asked(0, 1)
    engine = FakeEngine(FakeOptions(), "toy")
    block = TokenScores(start=32, valid=np.ones(32, dtype=np.bool_), sampled_logprob=np.zeros(32, dtype=np.float32))
    reply = ScoreReply(scores=(block,), provenance=engine.provenance, usage=Usage())
    return len(encode_request(request)), len(encode_reply(reply))


def installed(package: str) -> str:
    """The release of a package in the peers' environment."""
    path = [str(p) for p in (ROOT / ".venv-trl" / "lib").glob("python*/site-packages")]
    return next(iter(distributions(name=package, path=path))).version
