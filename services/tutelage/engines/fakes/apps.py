"""The servers by name."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI

from tutelage.engines.fakes.chat import chat_app
from tutelage.engines.fakes.completions import completions_app
from tutelage.engines.fakes.judge import judge_app
from tutelage.engines.fakes.sglang import sglang_app
from tutelage.engines.fakes.toy import ToyServer
from tutelage.engines.fakes.vllm import vllm_app

APPS: dict[str, Callable[[ToyServer], FastAPI]] = {
    "vllm": vllm_app,
    "sglang": sglang_app,
    "openai": completions_app,
    "chat": chat_app,
    "judge": judge_app,
}
