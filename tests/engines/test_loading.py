"""Weights are loaded whole, whoever else loads some at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tutelage.engines.loading import load_model

TIED = Path(__file__).parents[2] / "examples/skill/student"
THREADS = 4


def test_a_tied_head_is_found_in_loads_at_the_same_time_and_after_them() -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        loads = [pool.submit(load_model, str(TIED), None, "float32", torch.device("cpu")) for _ in range(3 * THREADS)]
    models = [*(load.result() for load in loads), load_model(str(TIED), None, "float32", torch.device("cpu"))]
    for model in models:
        assert model.config.tie_word_embeddings
        assert model.lm_head.weight is model.model.embed_tokens.weight
