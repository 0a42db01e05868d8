"""One side of a cell, seen from the benchmark: its process, what it computed, and when two sides computed the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import distributions
from importlib.metadata import version as installed
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).parents[2]
PEERS_PYTHON = ROOT / ".venv-trl" / "bin" / "python"
HINT = "loss: without TRL and Liger, which `make bench-peers` installs; measured beside the dense form and the products"
OURS = ("ours", "with_metrics", "dense", "gemm")
PEERS = {
    "ours": "ours: trained head, no metrics",
    "dense": "dense",
    "gemm": "matrix products alone",
    "trl": "TRL chunked divergence",
    "liger": "Liger chunked JSD",
}
PACKAGES = {"trl": "trl", "liger": "liger-kernel"}
# (loss, gradients), relative: float32 summed in another order; bfloat16 logits, gradients rounded again by each side
TOLERANCES = {"float32": (1e-5, 1e-4), "bfloat16": (1e-2, 5e-2)}


class Outcome(NamedTuple):
    """Sum of the loss, peak bytes beyond the givens and their gradients, and what is compared of the gradients."""

    loss: float
    extra_bytes: float
    gradients: dict[str, Tensor]


class Figures(NamedTuple):
    """A side of a cell: its first run, and milliseconds and processor milliseconds of those that count."""

    outcome: Outcome
    times_ms: list[float]
    cpu_ms: list[float]


class Side:
    """The worker process of one side, killed at the end. cpu_s: processor time of each run so far."""

    def __init__(self, settings: dict[str, Any], folder: Path) -> None:
        self.name, self.folder = settings["side"], folder
        self.cpu_s: list[float] = []
        python = sys.executable if self.name in OURS else str(PEERS_PYTHON)
        paths = os.pathsep.join([str(ROOT / "services"), str(ROOT)])
        env = os.environ | {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1"}
        self.log = (folder / f"{self.name}.log").open("ab")
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("worker.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1, env=env,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(settings) + "\n")

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        line = self.process.stdout.readline()
        if not line:
            log = Path(self.log.name).read_text()
            raise RuntimeError(f"the worker of {self.name} ended with code {self.process.wait()}: {log[-2000:]}")
        return json.loads(line)

    def run(self) -> None:
        self.cpu_s.append(self.ask({"run": True})["cpu_s"])

    def outcome(self) -> Outcome:
        path = self.folder / f"{self.name}-{self.process.pid}.pt"
        told = self.ask({"result": str(path)})
        return Outcome(told["loss"], told["extra_bytes"], torch.load(path, weights_only=True))


def agree(one: Outcome, other: Outcome, dtype: str) -> bool:
    """Equal losses, and gradients whose difference is small beside them, for those that both have."""
    loss, gradient = TOLERANCES[dtype]
    shared = one.gradients.keys() & other.gradients.keys()
    close = (
        bool((a - b).norm() <= gradient * b.norm()) for a, b in ((one.gradients[n], other.gradients[n]) for n in shared)
    )
    return "hidden" in shared and bool(np.isclose(one.loss, other.loss, rtol=loss, atol=0)) and all(close)


def available() -> bool:
    """True where both peers are installed."""
    return PEERS_PYTHON.exists() and all(found(package) for package in PACKAGES.values())


def found(package: str) -> str | None:
    """The package's version in the peers' environment, from its metadata."""
    sites = map(str, (PEERS_PYTHON.parents[1] / "lib").glob("python*/site-packages"))
    return next((one.version for one in distributions(name=package, path=list(sites))), None)


def version(peer: str) -> str:
    torch_version = found("torch") if peer in PACKAGES else installed("torch")
    return f"{found(PACKAGES[peer])} (torch {torch_version})" if peer in PACKAGES else f"torch {torch_version}"
