"""Tiny random models with a byte tokenizer, made in process and saved like real ones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tutelage.engines.fakes import listening, write_tokenizer

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, after <pad>, <bos> and <eos> with the ids 0, 1, 2."""
    vocabulary = {
        token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", *sorted(pre_tokenizers.ByteLevel.alphabet())])
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", chat_template=CHAT
    )


_SHARED: dict[str, Any] = {"vocab_size": 259, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_ROPE = _SHARED | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.25,
}
FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_ROPE)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(**_SHARED, n_embd=32, n_layer=2, n_head=4, n_positions=96, initializer_range=0.25)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_ROPE, head_dim=8, tie_word_embeddings=True)),
}


def tiny(family: str) -> PreTrainedModel:
    """A random model of the family, in eval mode, always the same."""
    torch.manual_seed(7)
    return FAMILIES[family]().eval()


@pytest.fixture(scope="session")
def make_model() -> Callable[[str], PreTrainedModel]:
    return tiny


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def model(family: str) -> PreTrainedModel:
    return tiny(family)


@pytest.fixture(scope="session")
def model_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A directory of each family as `save_pretrained` writes it, tokenizer included."""
    root = tmp_path_factory.mktemp("models")
    for name in FAMILIES:
        tiny(name).save_pretrained(root / name)
        byte_tokenizer().save_pretrained(root / name)
    return {name: root / name for name in FAMILIES}


@pytest.fixture(scope="session")
def model_dir(family: str, model_dirs: dict[str, Path]) -> Path:
    return model_dirs[family]


@pytest.fixture(scope="session")
def toy_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of a toy teacher with 97 tokens."""
    return write_tokenizer(tmp_path_factory.mktemp("toy"), 97)


@contextmanager
def _served(apps: dict[str, FastAPI]) -> Iterator[dict[str, str]]:
    """Addresses of apps that are served by another thread of this process."""
    urls: dict[str, str] = {}
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with AsyncExitStack() as stack:
            for name, app in apps.items():
                urls[name] = await stack.enter_async_context(listening(app))
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield urls
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="session")
def serve() -> Callable[[dict[str, FastAPI]], AbstractContextManager[dict[str, str]]]:
    return _served
