"""Models that score and generate, each behind the contract in `base`; the only place that touches a model library."""

from tutelage.engines.base import Engine, Tokenizer
from tutelage.engines.opening import open_engine
from tutelage.engines.options import (
    ChatOptions,
    EngineOptions,
    FakeOptions,
    HfOptions,
    HfRewardOptions,
    ReplicatedOptions,
    UpstreamOptions,
    VllmOptions,
)

__all__ = [
    "ChatOptions",
    "Engine",
    "EngineOptions",
    "FakeOptions",
    "HfOptions",
    "HfRewardOptions",
    "ReplicatedOptions",
    "Tokenizer",
    "UpstreamOptions",
    "VllmOptions",
    "open_engine",
]
