"""The commands in the docs, run as they stand: all `sh` and `bash` blocks of a page, as one script on a shared stack.

Its `python` blocks run behind that, in this process, which has torch already. What both print must hold what SAID says.

A `console` block whose commands stand behind "$ " is a transcript: it is run, and what it shows must be what came out,
but for ids, numbers and times. Other `console` blocks are not run; tests/docs/test_commands.py gives them to the
parsers. `tutelage up` is one of these: the stack here was started by the same command, on a free port.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from embedded_stack import Up, finished, small_spec
from pages import FENCE, PAGES, ROOT, blocks, page_id
from transcripts import HOME, URL, is_transcript, read, recorded, rewritten, settled, transcripts
from transformers import AutoModelForCausalLM

from tutelage_client.wire.measures import MEASURES

# What the output of each page must hold, beyond that no command failed.
SAID = {
    "docs/http.md": ["\nsucceeded\n", "sampled_logprob", "model.safetensors"],
    "docs/tutorial.md": ["succeeded", "overlap_s", "7 tokens scored"],
    "docs/howto/your-own-model.md": ["step 2/2", "accuracy", "succeeded"],
    "docs/howto/remote-teacher.md": ["remote", "4 tokens scored"],
    "docs/howto/upstream-teacher.md": ['"covers_candidates":true', "4 tokens scored"],
    "docs/howto/black-box-teacher.md": ['"detail":{"score":2}', '"detail":{"score":0}', '"detail":{"score":9}'],
    "docs/howto/rewards.md": ['"value":1.0', '"outcome":"passed"', '"outcome":"failed"'],
    "docs/howto/openai-clients.md": ['"owned_by":"tutelage"', "'1' None"],
    "docs/howto/several-teachers.md": ["succeeded", "refused, as", "reverse_kl/adder", "reverse_kl/novice"],
    "docs/howto/replicas-and-cache.md": [
        "4 tokens scored",
        '"a replica is quarantined"',
        "} 0.0",
        '"hits":1',
        'completions_total{outcome="miss"} 1.0',
    ],
    "docs/howto/keys-and-budgets.md": ["4 tokens scored", '"account":"key alice","tokens":4'],
    "docs/howto/keys-and-projects.md": ["no runs yet", "is refused from now on"],
    "docs/howto/python-client.md": [
        "finalizing -> succeeded",
        "succeeded None",
        "the fork did steps [3, 4]",
        "(7, 3) float32",
    ],
    "docs/howto/export.md": ["run.json", "metrics.parquet", "model.safetensors", "README.md"],
    "docs/howto/watching.md": ["event: metrics", "finalizing -> succeeded", "tutelage_teacher_scored_tokens_total"],
    "docs/howto/pushed-rollouts.md": ["8 taken", "1 was there already", "succeeded"],
    "docs/howto/sampler-workers.md": ["step 4/4", "succeeded"],
    "docs/operations.md": ["3 tokens scored", "succeeded", "tutelage_http_requests_total", '"ready"'],
}


def script_of(page: Path, records: Path) -> str:
    """What it starts ends with it. records: where the outputs of its transcripts go, each in a file of its number"""
    parts, count = ["set -euo pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"], 0
    for language, text in FENCE.findall(page.read_text()):
        if language in ("sh", "bash"):
            parts.append(text)
        elif is_transcript(language, text):
            parts.append(recorded(text, count, records))
            count += len(read(text))
    return "\n".join(parts)


@pytest.fixture(scope="module")
def measured(up: Up, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The ids of runs that have ended and together measured all that a run can measure."""
    problems = tmp_path_factory.mktemp("measures") / "problems.jsonl"
    problems.write_text('{"prompt": "3+4:", "completion": "7", "answer": "7", "tag": "short"}\n')
    clips = [{"kind": "signal_clip"}, {"kind": "ratio_clip"}]
    objective = {"kind": "divergence", "support": {"kind": "teacher_top_k", "k": 4}}
    reward = {"by": {"kind": "last_number"}, "advantage": "batch_normalised"}

    async def succeed(**own: Any) -> str:
        async with up.client() as client:
            run_id = (await client.submit(small_spec(problems, "measures", stabilizers=clips, **own))).id
        assert (await finished(up, run_id)).error is None
        return run_id

    replaced = {"on_loss": "failover", "failover_to": "novice"}
    teachers = [{"name": "adder", "tags": ["short"]} | replaced, {"name": "novice"}]
    wanted: list[dict[str, Any]] = [{}, {"objective": objective, "reward": reward}, {"teachers": teachers}]
    wanted.append({"rollout": {"source": "adaptive", "adaptive": {"initial_share": 1.0}}})
    wanted.append({"rollout": {"source": "paired"}, "objective": {"kind": "preset", "name": "distillm-2"}})
    return [asyncio.run(succeed(**own)) for own in wanted]


@pytest.fixture(scope="module")
def a_run(measured: list[str]) -> str:
    return measured[0]


def run(page: Path, up: Up, run_id: str, folder: Path) -> str:
    """Run a page's script as in a clone of the repository; its output. That of transcripts is in `folder/records`."""
    (folder / "records").mkdir()
    shutil.copytree(ROOT / "examples" / "skill", folder / "examples" / "skill")
    (folder / ".venv").symlink_to(sys.prefix)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    stack = {"TUTELAGE": up.url, "TUTELAGE_COORDINATOR": up.url, "REDIS": up.described["redis"]["url"], "RUN": run_id}
    done = subprocess.run(
        ["bash", "-c", script_of(page, folder / "records")],
        cwd=folder,
        env=os.environ | stack | {"DATA": str(up.data_dir), "PATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr + up.logs()
    return done.stdout


async def teachers_of(up: Up) -> set[str]:
    async with up.client() as client:
        return {teacher.name for teacher in await client.teachers()}


def hold_transcripts(page: Path, up: Up, folder: Path) -> None:
    """What the page's transcripts printed is what it shows; with TUTELAGE_TRANSCRIPTS set it is written there."""
    shown = transcripts(page)
    places = {up.url: URL, str(up.data_dir): f"{HOME}/tutelage-data", str(folder): HOME}
    printed = [(folder / "records" / str(number)).read_text() for number in range(len(shown))]
    for place, told in places.items():
        printed = [output.replace(place, told) for output in printed]
    if "TUTELAGE_TRANSCRIPTS" in os.environ:
        page.write_text(rewritten(page, printed))
    for said, output in zip(transcripts(page), printed, strict=True):
        assert settled(said.output) == settled(output), f"{said.command}: `make transcripts` writes it anew"


def test_every_page_with_commands_is_run() -> None:
    assert {page_id(page) for page in PAGES if blocks(page, "sh", "bash")} == set(SAID)
    unprepared = {page_id(page) for page in PAGES if blocks(page, "python")} - set(SAID)
    assert unprepared == {"README.md"}
    assert blocks(ROOT / "README.md", "python") == blocks(ROOT / "docs/howto/python-client.md", "python")[:1]


@pytest.mark.parametrize("name", SAID)
def test_the_commands_of_a_page_work(
    up: Up, a_run: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = asyncio.run(teachers_of(up))
    said = run(ROOT / name, up, a_run, tmp_path)
    assert asyncio.run(teachers_of(up)) == before, "a page leaves the stack as it found it, or the next one fails"
    hold_transcripts(ROOT / name, up, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUTELAGE_COORDINATOR", up.url)
    with redirect_stdout(StringIO()) as printed:
        for program in blocks(ROOT / name, "python"):
            exec(program, {})
    said += printed.getvalue()
    assert [words for words in SAID[name] if words not in said] == [], said
    for weights in tmp_path.glob("distilled/**/model.safetensors"):
        assert AutoModelForCausalLM.from_pretrained(weights.parent).num_parameters() > 0


async def test_every_metric_of_a_run_has_a_meaning_and_every_meaning_a_metric(up: Up, measured: list[str]) -> None:
    async with up.client() as client:
        rows = [row for run_id in measured for row in await client.metrics(run_id)]
    seen = {documented(name) for row in rows for name in row}
    assert seen | {"teacher_usd"} == set(MEASURES)  # dollars are of teachers with prices: test_hard_limits.py has one


def documented(name: str) -> str:
    """A metric as the table has it, which stands for all tags, places and teachers."""
    kind, _, place = name.partition("/")
    places = {"accuracy": "TAG", "rollouts_at_lag": "LAG"} | dict.fromkeys(
        ("log_ratio_p10", "log_ratio_p50", "log_ratio_p90"), "BIN"
    )
    return f"{kind}/{places.get(kind, 'TEACHER')}" if place and name not in MEASURES else name
