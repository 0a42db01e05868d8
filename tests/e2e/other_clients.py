"""Clients of others against a real teacher's OpenAI-compatible door: lm-eval and TRL, as they come from PyPI.

`make bench-peers` installs them; `tests/e2e/run` runs this file, which pytest does not collect by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT, blocks

from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import GenerateRequest, Generation, ScoreRequest, ScoreSequence, Signal

PEERS = ROOT / ".venv-trl" / "bin"
MODEL = ROOT / "examples" / "skill" / "teacher"
PAGE = ROOT / "docs" / "howto" / "openai-clients.md"
OFFLINE = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    argv = [sys.executable, "-m", "tutelage.teacher", "--model", str(MODEL), "--name", "adder", "--port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = (re.fullmatch(r"listening on (\S+)\n", line) for line in process.stdout)
        yield next(found[1] for found in said if found)
        process.terminate()


@pytest.fixture(scope="module")
def questions(url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half of the answers are what the teacher writes greedily itself, half are not."""
    asked = [json.loads(line) for line in (MODEL.parent / "eval.jsonl").read_text().splitlines()[:12]]
    written = asyncio.run(greedy(url, [each["prompt"] for each in asked[:6]]))
    for each, (one,) in zip(asked[:6], written, strict=True):
        each["answer"] = one.text
    path = tmp_path_factory.mktemp("questions") / "eval.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in asked))
    return path


async def greedy(url: str, prompts: list[Any]) -> list[list[Generation]]:
    async with TeacherClient(url) as client:
        return (await client.generate(GenerateRequest(prompts=prompts, max_tokens=6, temperature=0))).generations


@pytest.fixture(scope="module")
def saw(url: str, questions: Path) -> dict[str, Any]:
    assert PEERS.exists(), "no environment with the clients of others; run `make bench-peers`"
    worker = ROOT / "tests" / "support" / "clients_worker.py"
    folder = questions.parent
    argv = [PEERS / "python", worker, url, "adder", MODEL, questions, folder]
    env = os.environ | OFFLINE | {"HF_HOME": str(folder / "hf")}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "out.json").read_text())


def test_lm_eval_finds_through_the_door_what_it_finds_with_the_weights(saw: dict[str, Any]) -> None:
    theirs, ours = saw["hf"]["answers"], saw["served"]["answers"]
    np.testing.assert_allclose([a[0] for a in ours], [a[0] for a in theirs], rtol=1e-5, atol=1e-5)
    assert [a[1] for a in ours] == [a[1] for a in theirs] == [True] * 6 + [False] * 6
    assert saw["hf"]["metrics"].keys() == saw["served"]["metrics"].keys() > {"acc,none"}
    assert saw["served"]["metrics"]["acc,none"] == saw["hf"]["metrics"]["acc,none"] == 0.5


async def test_trl_sees_the_scores_of_our_own_route(url: str, saw: dict[str, Any]) -> None:
    trl = saw["trl"]
    sequences = tuple(
        ScoreSequence(token_ids=np.array(ids), score_start=start)
        for ids, start in zip(trl["sequences"], trl["prompt_lengths"], strict=True)
    )
    async with TeacherClient(url) as client:
        signals = frozenset({Signal.SAMPLED, Signal.TOP_K})
        reply = await client.score(ScoreRequest(sequences=sequences, signals=signals, top_k=trl["k"]))
    for i, block in enumerate(reply.scores):
        found = {name: np.array(columns[i]) for name, columns in trl["saw"].items()}
        assert block.topk_ids is not None
        assert block.topk_logprob is not None
        assert block.sampled_logprob is not None
        np.testing.assert_array_equal(found["logprob_token_ids"], block.topk_ids)
        np.testing.assert_allclose(found["logprobs"], block.topk_logprob, atol=1e-5)
        np.testing.assert_allclose(found["actual_logprobs"][:, 0], block.sampled_logprob, atol=1e-5)


def test_trl_is_told_that_no_other_temperature_is_applied(saw: dict[str, Any]) -> None:
    assert saw["trl"]["refused"].startswith("Request failed: 400")
    assert "temperature is 0.7" in saw["trl"]["refused"]


def test_the_command_of_the_page_works(url: str, questions: Path, tmp_path: Path) -> None:
    (task,), (commands,) = blocks(PAGE, "yaml"), blocks(PAGE, "console")
    (tmp_path / "sums.yaml").write_text(task)
    shutil.copy(questions, tmp_path / "eval.jsonl")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    env = os.environ | OFFLINE | {"TEACHER": url, "HF_HOME": str(tmp_path), "PATH": f"{PEERS}:{os.environ['PATH']}"}
    script = commands.partition("\n")[2]  # without its first line, which installs
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"\|acc\s+\|.*0\.5", done.stdout)
