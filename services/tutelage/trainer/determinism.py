"""Bit-for-bit repeats: what torch must be told for them, once a process."""

from __future__ import annotations

import os

import torch


def settle() -> None:
    """Let this process compute only what repeats bit for bit: deterministic kernels, sums in one thread.

    What is random in a run follows from (seed, step, purpose) in every mode; what order scores arrive in has no effect.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by cuBLAS when its first handle is made
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
