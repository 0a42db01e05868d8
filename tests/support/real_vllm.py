"""A real vLLM on this machine's CPU, over a checkpoint that is made here."""

from __future__ import annotations

import asyncio
import os
import runpy
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import httpx2
import torch
from recording import recorded
from subjects import Subject, plain_forward
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tutelage.engines import Engine, UpstreamOptions, VllmOptions, open_engine

Runner = Literal["v1", "v2"]  # the second scores ids of each row, the first refuses them
PYTHON = os.environ.get("TUTELAGE_TEST_VLLM")  # of an environment with vLLM; there are real servers if it is named
SERVERS: dict[str, tuple[Runner, list[str]]] = {
    "real-vllm": ("v2", ["--enable-scale-out", "--max-logprobs", "256"]),
    "real-vllm-v1": ("v1", ["--enable-scale-out"]),
}
IN_PROCESS = ("vllm-in-process",) if find_spec("vllm") else ()
REAL = (*(SERVERS if PYTHON else ()), *IN_PROCESS)
START_S = 300.0
LOADING_TURNS = 100  # a start takes far longer than a second
MAX_LENGTH = 96
SHARED = (3 * 30 + 6, 0)  # vLLM does not say what its prefix cache spared
RECORD = "TUTELAGE_RECORD_VLLM" in os.environ  # what the real servers answer replaces the recordings
RECORDED_TOP_K = 8  # keeps the recordings small
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiling a helper would make the first scores wait for 20 s
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
SHIM = Path(__file__).parent / "vllm_shim"
V2 = {
    "PYTHONPATH": str(SHIM),
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
}


def _by_ids(ids: list[int], **parameters: Any) -> tuple[str, dict[str, Any]]:
    return "/inference/v1/generate", {"model": "tiny", "token_ids": ids, "sampling_params": parameters}


def _by_top_k(prompt: list[int], **parameters: Any) -> tuple[str, dict[str, Any]]:
    return "/v1/completions", {"model": "tiny", "prompt": prompt} | parameters


# What a server cuts short or refuses: more tokens than there is room for, none, a longer sequence, ids that it does not
# know, more entries than its cap, rows that do not match, another model.
AMISS = (
    _by_top_k([5, 6], max_tokens=0, prompt_logprobs=1),
    _by_top_k([5] * MAX_LENGTH, max_tokens=2, prompt_logprobs=1),
    _by_top_k([5] * (MAX_LENGTH + 1), max_tokens=1, prompt_logprobs=1),
    _by_top_k([5, 999], max_tokens=1, prompt_logprobs=1),
    _by_top_k([5, 6], max_tokens=1, prompt_logprobs=300),
    _by_top_k([5, 6], max_tokens=1, prompt_logprobs=1, model="other"),
    _by_ids([5, 6], max_tokens=0),
    _by_ids([5] * MAX_LENGTH, max_tokens=2),
    _by_ids([5] * (MAX_LENGTH + 1), max_tokens=1),
    _by_ids([5, 999], max_tokens=1),
    _by_ids([5, 6], max_tokens=1, prompt_logprobs=300),
    _by_ids([5, 6, 7], max_tokens=1, prompt_logprob_start=0, prompt_logprob_token_ids=[[1]]),
    _by_ids([5, 6, 7], max_tokens=1, prompt_logprob_start=0, prompt_logprob_token_ids=[[1], [999]]),
)


def wide_model(vocabulary_size: int) -> Qwen3ForCausalLM:
    """A random model, always the same, with heads of 64: vLLM's attention on a CPU knows none that are narrower."""
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=vocabulary_size,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=MAX_LENGTH + 1,  # vLLM writes a token after the longest sequence that it scores
        initializer_range=0.25,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Qwen3ForCausalLM(config).eval()


def save_wide(path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """That model and its tokenizer as a directory."""
    wide_model(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@asynccontextmanager
async def open_real(directory: Path, tokenizer: PreTrainedTokenizerFast) -> AsyncGenerator[dict[str, Subject]]:
    """Every subject of `REAL`, connected."""
    save_wide(directory, tokenizer)
    logprobs = plain_forward(wide_model(len(tokenizer)))
    async with AsyncExitStack() as stack:
        how = SERVERS if PYTHON else {}
        servers = {name: stack.enter_context(started(directory, *how[name])) for name in how}
        subjects: dict[str, Subject] = {}
        for name in REAL:
            if name in IN_PROCESS:
                engine = await _in_process(directory)
            elif RECORD:
                url = await stack.enter_async_context(recorded(servers[name].wait(), recording_of(name)))
                await ask_amiss(url)
                engine = await reached(url, directory, RECORDED_TOP_K)
            else:
                engine = await reached(servers[name].wait(), directory)
            stack.push_async_callback(engine.close)
            turns = await turns_while(engine.connect())
            assert name not in IN_PROCESS or turns > LOADING_TURNS, "loading the model held up the loop"
            assert engine.capabilities.covers_candidates == (name != "real-vllm-v1")
            subjects[name] = Subject(engine, logprobs, SHARED)
        yield subjects


async def turns_while(work: Coroutine[Any, Any, Any]) -> int:
    """How often the loop came to something else while `work` was done, asked every hundredth of a second."""
    turns, working = 0, asyncio.create_task(work)
    while not working.done():
        await asyncio.sleep(0.01)
        turns += 1
    await working
    return turns


async def open_recorded(url: str, directory: Path, tokenizer: PreTrainedTokenizerFast) -> Subject:
    """The engine before a recording that is served at `url`."""
    save_wide(directory, tokenizer)
    engine = await reached(url, directory, RECORDED_TOP_K)
    await engine.connect()
    return Subject(engine, plain_forward(wide_model(len(tokenizer))), SHARED)


async def ask_amiss(url: str) -> None:
    """Requests that a server refuses, for the record."""
    async with httpx2.AsyncClient(base_url=url) as client:
        for path, body in AMISS:
            await client.post(path, json=body)


async def reached(url: str, directory: Path, max_top_k: int = 256) -> Engine:
    options = UpstreamOptions(kind="vllm", upstream=url, model=str(directory), max_top_k=max_top_k)
    return await open_engine(options, "tiny")


def recording_of(name: str) -> Path:
    """What the server answered when it was recorded, by `tests/e2e/record-vllm`."""
    return Path(__file__).parents[1] / "engines" / "recorded" / f"{name}.json"


async def _in_process(directory: Path) -> Engine:
    """This process and those that it starts are made ready for the V2 runner."""
    os.environ.update(ENVIRONMENT | V2)
    runpy.run_path(str(SHIM / "sitecustomize.py"))
    return await open_engine(VllmOptions(model=str(directory), vllm_args={"enforce_eager": True}), "tiny")


@dataclass(frozen=True)
class Server:
    """A process that is starting to serve."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> str:
        """Its address, once it takes work."""
        until_s = time.monotonic() + START_S
        while self.process.poll() is None and time.monotonic() < until_s:
            with suppress(httpx2.TransportError):
                if httpx2.get(f"{self.url}/health").is_success:
                    return self.url
            time.sleep(0.5)  # polled: nobody is told when it has loaded its model
        raise AssertionError(f"vLLM did not start:\n{self.log.read_text(errors='replace')[-4000:]}")


@contextmanager
def started(model: Path, runner: Runner, flags: Sequence[str]) -> Iterator[Server]:
    """A server of the directory `model`, stopped at the end."""
    assert PYTHON is not None
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", model.name, "--port", str(port)]
    command += ["--host", "127.0.0.1", "--served-model-name", "tiny", "--dtype", "float32", "--enforce-eager", *flags]
    environment = os.environ | ENVIRONMENT | (V2 if runner == "v2" else {"PYTHONPATH": ""})
    log = model / f"{port}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=model.parent)
    try:
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.terminate()
        process.wait(60)
