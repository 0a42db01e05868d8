"""The teacher as a process: its flags, the line that its supervisor reads, and a clean end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx2
from pydantic_settings import CliApp

from tutelage.engines import FakeOptions
from tutelage.engines.fakes import ToyServer, listening, write_tokenizer
from tutelage.engines.fakes.vllm import vllm_app
from tutelage.teacher.settings import Settings
from tutelage_client.teacher import TeacherClient

ENV = {name: value for name, value in os.environ.items() if not name.startswith("TUTELAGE_")}


async def start(*flags: str, **environment: str) -> Process:
    command = (sys.executable, "-m", "tutelage.teacher", *flags)
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE, env=ENV | environment)


@contextlib.asynccontextmanager
async def running(*flags: str, **environment: str) -> AsyncGenerator[tuple[Process, str]]:
    process = await start("--port", "0", *flags, **environment)
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("listening on http://127.0.0.1:")
        yield process, line.split()[-1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_it_serves_says_where_and_ends_well_on_sigterm(request_for: Any) -> None:
    options = json.dumps({"vocabulary_size": 16})
    flags = ("--engine", "fake", "--name", "walker", "--fake-options", options)
    async with running(*flags, TUTELAGE_TEACHER_MAX_CANDIDATES="7") as (process, url):
        async with TeacherClient(url) as client:
            info = await client.info()
            assert (info.name, info.provenance.teacher, info.capabilities.vocabulary_size) == ("walker", "walker", 16)
            assert (await client.score(request_for())).usage.scored_tokens == 3
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
    assert out == b""
    lines = [json.loads(line) for line in err.splitlines()]
    assert all({"time", "level", "service", "message"} <= line.keys() for line in lines)
    assert {line["level"] for line in lines} == {"info"}


async def refused(*flags: str) -> tuple[int | None, str]:
    process = await start(*flags)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert out == b""
    return process.returncode, err.decode()


def test_a_teacher_may_be_called_null() -> None:
    assert CliApp.run(Settings, cli_args=["--engine", "fake", "--name", "null"]).name == "null"


async def test_flags_that_cannot_be_used_end_it_with_one_sentence(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("not a digest\n")
    answers = await asyncio.gather(
        refused(),
        refused("--engine", "fake", "--keys-file", str(keys)),
        refused("--engine", "fake", "--redis-url", "http://localhost"),
    )
    assert [status for status, _ in answers] == [2, 2, 2]
    for (_, said), part in zip(answers, ("needs --model", "line 1 is not a sha256", "redis://"), strict=True):
        assert part in said
        assert len(said.splitlines()) == 1


async def test_a_process_notices_that_its_server_loaded_another_model(tmp_path: Path) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=97, max_length=64), ("model_changes",), changes_at=60)
    write_tokenizer(tmp_path / "toy", 97)
    async with listening(vllm_app(toy)) as upstream:
        flags = ("--engine", "vllm", "--upstream", upstream, "--model", str(tmp_path / "toy"), "--name", "toy")
        async with (
            running(*flags, "--canary-every-s", "0.1") as (_, url),
            httpx2.AsyncClient(base_url=url) as http,
            asyncio.timeout(60),
        ):
            assert (await http.get("/readyz")).status_code == 200
            while (await http.get("/readyz")).status_code == 200:
                await asyncio.sleep(0.05)
            assert "another model answers" in (await http.get("/readyz")).json()["detail"]
