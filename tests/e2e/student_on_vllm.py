"""A real vLLM as a sampler's server: adapters are exact, and whole weights that did not arrive are noticed.

Run by `tests/e2e/vllm`, with TUTELAGE_TEST_VLLM naming the Python of an environment with vLLM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from real_vllm import Server, save_wide, started, wide_model
from students_elsewhere import snapshot_of, text_of

from tutelage.engines.fakes.tokenizer import write_tokenizer
from tutelage.engines.loading import load_model
from tutelage.engines.snapshots import Base, SnapshotRefused
from tutelage.engines.snapshots.local import LocalStudent
from tutelage.engines.snapshots.served import ServedStudent
from tutelage.engines.tokenizer import load_tokenizer
from tutelage.engines.upstream.calls import Calls
from tutelage.engines.upstream.http import UpstreamHttp

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
FLAGS = ["--enable-lora", "--max-lora-rank", "16", "--max-loras", "1"]
ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
VOCABULARY = 97


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    write_tokenizer(folder / "words", VOCABULARY)
    return save_wide(folder / "model", load_tokenizer(folder / "words"))


@pytest.fixture(scope="module")
def server(student: Path) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        with started(student, "v1", FLAGS) as server:
            server.wait()
            yield server


@pytest.fixture
def remote(server: Server) -> ServedStudent:
    return ServedStudent(UpstreamHttp(Calls(server.url, 60.0, 8), None), "e2e", most_off=0.01, patience_s=0)


def adapted(student: Path, root: Path, version: int) -> Any:
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(wide_model(VOCABULARY), settings)
    torch.manual_seed(version)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.2)
    return snapshot_of(model.eval(), root, version, Base(model=str(student)))


async def test_adapters_that_come_and_go_write_what_they_say(
    student: Path, remote: ServedStudent, tmp_path: Path
) -> None:
    older, newer = adapted(student, tmp_path, 1), adapted(student, tmp_path, 2)
    for ref in (older, newer, older):
        await remote.load(ref)
        local = LocalStudent("cpu")
        await local.load(ref)
        requests = [text_of(ref, place, 4, prompt_ids=[5, 7 + place], max_new_tokens=12) for place in range(4)]
        async for ended in remote.write(requests):
            for index, text in ended:
                ids = [*requests[index].prompt_ids.tolist(), *text.token_ids.tolist()]
                own = await asyncio.to_thread(local.logprobs, ids)
                np.testing.assert_allclose(text.logprobs, own[1:], atol=1e-4)
                assert text.finish_reason == ("stop" if text.token_ids[-1] == 0 else "length")
    await remote.close()


async def test_whole_weights_that_a_processor_garbles_are_refused(
    student: Path, remote: ServedStudent, tmp_path: Path
) -> None:
    """Should a later vLLM get them right here, this fails, and docs/howto/sampler-workers.md says less."""
    ref = snapshot_of(await asyncio.to_thread(otherwise_linear, student), tmp_path, 3)
    try:
        with pytest.raises(SnapshotRefused, match="does not hold the weights of policy version 3"):
            await remote.load(ref)
    finally:
        await remote.close()


@torch.no_grad()
def otherwise_linear(student: Path) -> Any:
    """The model with other linear layers: their weights are what vLLM lays out anew for a processor."""
    model = load_model(str(student), None, "float32", torch.device("cpu"))
    for layer in (m for m in model.modules() if isinstance(m, torch.nn.Linear)):
        layer.weight *= 1.5
    return model
