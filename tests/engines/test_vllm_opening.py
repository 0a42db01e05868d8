"""vLLM in process where there is no vLLM, and where `--upstream` is meant instead. With it: tests/e2e/vllm."""

from __future__ import annotations

import pytest

from tutelage.engines import UpstreamOptions, VllmOptions, open_engine
from tutelage.teacher.settings import Settings
from tutelage_client.errors import InvalidInput


async def test_without_vllm_the_refusal_says_what_to_install() -> None:
    with pytest.raises(InvalidInput, match=r"install tutelage\[vllm\], or name a server with --upstream"):
        await open_engine(VllmOptions(model="anywhere"), "big")


def test_an_upstream_decides_whether_vllm_is_a_server_or_runs_here() -> None:
    here = Settings.model_validate({"engine": "vllm", "model": "m", "vllm_args": {"tensor_parallel_size": 2}})
    there = Settings.model_validate({"engine": "vllm", "model": "m", "upstream": "http://gpu:8000"})
    assert here.engine_options() == VllmOptions(model="m", vllm_args={"tensor_parallel_size": 2})
    assert there.engine_options() == UpstreamOptions(kind="vllm", model="m", upstream="http://gpu:8000")
