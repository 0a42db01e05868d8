"""From options to an engine. A model library is imported only if the engine needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tutelage.engines.base import Engine
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
from tutelage_client.errors import InvalidInput


async def open_engine(options: EngineOptions, name: str) -> Engine:
    """The engine that `options` describe, speaking as teacher `name`. An upstream is not called yet: see `connect`.

    Raises:
        InvalidInput: the model, the tokenizer or the key file is not there or cannot be used.
    """
    return await asyncio.to_thread(_OPENERS[options.kind], options, name)


def _fake(options: FakeOptions, name: str) -> Engine:
    from tutelage.engines.fake import FakeEngine

    return FakeEngine(options, name)


def _hf(options: HfOptions, name: str) -> Engine:
    from tutelage.engines.hf import open_hf

    return open_hf(options, name)


def _hf_reward(options: HfRewardOptions, name: str) -> Engine:
    from tutelage.engines.hf_reward import open_hf_reward

    return open_hf_reward(options, name)


def _vllm(options: UpstreamOptions, name: str) -> Engine:
    from tutelage.engines.upstream.opening import open_http
    from tutelage.engines.vllm_http import Vllm
    from tutelage.engines.vllm_scores import tokens_at_once

    return open_http(options, name, Vllm, tokens_at_once)


def _vllm_in_process(options: VllmOptions, name: str) -> Engine:
    try:
        if options.device == "cuda":  # vLLM would say so in many lines, when it loads
            from tutelage.engines.loading import pick_device

            pick_device(options.device)
        from tutelage.engines.vllm import open_vllm
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "vllm"):
            raise
        message = "vLLM is not installed here; install tutelage[vllm], or name a server with --upstream"
        raise InvalidInput(message, "engine") from error
    return open_vllm(options, name)


def _sglang(options: UpstreamOptions, name: str) -> Engine:
    from tutelage.engines.sglang import Sglang
    from tutelage.engines.upstream.opening import open_http

    return open_http(options, name, Sglang)


def _openai(options: UpstreamOptions, name: str) -> Engine:
    from tutelage.engines.openai import open_openai

    return open_openai(options, name)


def _chat(options: ChatOptions, name: str) -> Engine:
    from tutelage.engines.chat import open_chat

    return open_chat(options, name)


def _replicated(options: ReplicatedOptions, name: str) -> Engine:
    from tutelage.engines.replicas import Replica, ReplicatedEngine

    replicas = [Replica(shown_url(one.upstream), _OPENERS[one.kind](one, name)) for one in options.replicas]
    return ReplicatedEngine(replicas, options.hedge_after_s)


def shown_url(url: str) -> str:
    """An address without what may be secret in it."""
    return url.partition("://")[2].rpartition("@")[2].rstrip("/")


_OPENERS: dict[str, Callable[[Any, str], Engine]] = {
    "fake": _fake,
    "hf": _hf,
    "hf_reward": _hf_reward,
    "vllm": _vllm,
    "vllm-in-process": _vllm_in_process,
    "sglang": _sglang,
    "openai": _openai,
    "chat": _chat,
    "replicated": _replicated,
}
