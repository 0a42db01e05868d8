"""Models that score and generate, each behind the contract in `base`; the only place that touches a model library."""

from __future__ import annotations

import asyncio

from tutelage.engines.base import Engine
from tutelage.engines.options import EngineOptions, FakeOptions, HfOptions

__all__ = ["Engine", "EngineOptions", "FakeOptions", "HfOptions", "open_engine"]


async def open_engine(options: FakeOptions | HfOptions, name: str) -> Engine:
    """The engine that `options` describe, speaking as teacher `name`. A model library is imported only if needed.

    Raises:
        InvalidInput: the model is not there or cannot be used.
    """
    if isinstance(options, FakeOptions):
        from tutelage.engines.fake import FakeEngine

        return FakeEngine(options, name)
    from tutelage.engines.hf import open_hf

    return await asyncio.to_thread(open_hf, options, name)
