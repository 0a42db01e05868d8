"""Ranks as torchrun starts them, but forked from a process that has imported torch already, so that they are quick."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from tutelage.standalone.stack import free_port
from tutelage.trainer.crew import Crew
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.member import serve
from tutelage.trainer.place import Place
from tutelage.trainer.ranks import Ranks

PRELOADED = ["two_ranks", "tutelage.trainer.execute", "transformers.models.llama.modeling_llama"]
Scenario = Callable[[Crew, Any], Any]


def at_work(scenario: Scenario, given: Any, log: Path, within_s: float = 120.0, size: int = 2) -> Any:
    """What rank 0 makes of the scenario, with the others at its side; every rank must end with 0."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    port = free_port()
    ranks = [context.Process(target=_rank, args=(n, size, port, log, scenario, given, theirs)) for n in range(size)]
    for each in ranks:
        each.start()
    try:
        assert ours.poll(within_s), log.read_text()
        found = pickle.loads(ours.recv_bytes())
        for each in ranks:
            each.join(within_s)
        assert [each.exitcode for each in ranks] == [0] * size, log.read_text()
        return found
    finally:
        for each in ranks:
            each.kill()


def _rank(number: int, size: int, port: int, log: Path, scenario: Scenario, given: Any, back: Connection) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = Ranks.joined(Place.found())
    if number:
        raise SystemExit(serve(ranks))
    crew = Crew(ranks)
    back.send_bytes(pickle.dumps(scenario(crew, given)))  # tensors by value: this process ends
    raise SystemExit(crew.dismiss(ExitCode.DONE))
