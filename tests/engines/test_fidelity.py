"""The fake of vLLM answers as the real one was recorded to: the same status, and no field that it lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from real_vllm import recording_of

from tutelage.engines import FakeOptions
from tutelage.engines.fakes import APPS, ToyServer, Trap
from tutelage.engines.fakes.replay import Exchange, load_recording

VOCABULARY = 259
TRAPS: dict[str, tuple[Trap, ...]] = {"real-vllm": (), "real-vllm-v1": ("v1_runner",)}
BY_TOKEN = ("prompt_logprobs", "top_logprobs")
Shape = Any


def exchanges() -> Iterator[Any]:
    for name in TRAPS:
        for number, exchange in enumerate(load_recording(recording_of(name))):
            yield pytest.param(name, exchange, id=f"{name}-{number}-{exchange.path}")


def shape(value: Any, field: str = "") -> Shape:
    """Names of fields and types of values. Maps by token are alike whichever tokens they have, as are lists."""
    if isinstance(value, dict):
        return {"<token>" if field in BY_TOKEN else name: shape(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [shape(value[-1], field)] if value else []
    return "null" if value is None else "number" if isinstance(value, int | float) else type(value).__name__


def lacks(fake: Shape, real: Shape, path: str = "") -> Iterator[str]:
    """Places at which the fake has what the real one does not."""
    if isinstance(fake, dict) and isinstance(real, dict):
        for name, field in fake.items():
            if name in real:
                yield from lacks(field, real[name], f"{path}.{name}")
            else:
                yield f"{path}.{name} is not there"
    elif isinstance(fake, list) and isinstance(real, list):
        for ours, theirs in zip(fake, real, strict=False):
            yield from lacks(ours, theirs, f"{path}[]")
    elif fake != real:
        yield f"{path} is {real}, not {fake}"


@pytest.mark.parametrize(("name", "exchange"), list(exchanges()))
async def test_the_fake_answers_as_the_real_one(name: str, exchange: Exchange) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=96), TRAPS[name], name="tiny")
    app = httpx2.ASGITransport(APPS["vllm"](toy))
    async with httpx2.AsyncClient(transport=app, base_url="http://toy") as client:
        answer = await client.request(exchange.method, exchange.path, json=exchange.body)
    assert answer.status_code == exchange.status, answer.text
    assert list(lacks(shape(answer.json()), shape(exchange.answer))) == []
