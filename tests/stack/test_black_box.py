"""A teacher that returns text alone: a hosted chat model writes for a cold start and judges on-policy answers."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from embedded_stack import Up, finished, removed, small_spec, until_registered

from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import RunStatus

GROUP = {"samples_per_prompt": 4, "prompts_per_step": 4}
RUBRIC = {"kind": "rubric", "rubric": "It says good."}


@pytest.fixture(scope="module")
def hosted(up: Up) -> Iterator[None]:
    """Two fakes of hosted APIs and a teacher process before each: `writer` and `judge`."""
    processes: list[subprocess.Popen[str]] = []

    def start(*argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-m", *argv], stdout=subprocess.PIPE, text=True)
        processes.append(process)
        return process

    try:
        for name, server in (("writer", "chat"), ("judge", "judge")):
            api = start("tutelage.engines.fakes", server)
            assert api.stdout is not None
            url = api.stdout.readline().removeprefix("listening on ").strip()
            reach = ("--redis-url", up.described["redis"]["url"], "--coordinator", up.url, "--port", "0")
            served = ("--engine", "chat", "--upstream", url, "--upstream-model", "toy", "--name", name)
            start("tutelage.teacher", *served, *reach)
        until_registered(up, {"writer", "judge"})
        yield
    finally:
        for process in reversed(processes):
            process.terminate()
            process.communicate(timeout=60)
    removed(up, ("writer", "judge"))


async def rows_of(up: Up, spec: dict[str, Any]) -> list[dict[str, Any]]:
    async with up.client() as client:
        run_id = (await client.submit(spec)).id
        run = await finished(up, run_id)
        assert run.status is RunStatus.SUCCEEDED, f"{run.error}\n{up.logs()}"
        return await client.metrics(run_id)


@pytest.mark.parametrize("by", [RUBRIC, {"kind": "pairwise", "rubric": "The one that says good."}])
async def test_a_student_learns_from_the_judgements_of_a_hosted_model(
    up: Up, hosted: None, data: Path, by: dict[str, Any]
) -> None:
    judged = {"by": by, "advantage": "group_centred"}
    anchor = [{"kind": "reference_kl", "coef": 0.01}]
    spec = small_spec(
        data,
        f"black-box-{by['kind']}",
        teachers=[{"name": "judge"}],
        rollout=GROUP,
        objective={"kind": "reward"},
        reward=judged,
        stabilizers=anchor,
    )
    rows = await rows_of(up, spec)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(0 <= row["reward"] <= 1 and row["unrewarded"] == 0 for row in rows[1:])
    assert all(math.isfinite(row["grad_norm"]) for row in rows[1:])
    assert rows[1]["teacher_tokens"] > 0
    assert rows[3]["teacher_tokens"] > rows[1]["teacher_tokens"]


async def test_the_budget_ends_a_run_that_a_judge_teaches(up: Up, hosted: None, data: Path) -> None:
    spec = small_spec(
        data,
        "black-box-budget",
        teachers=[{"name": "judge"}],
        rollout=GROUP,
        objective={"kind": "reward"},
        reward={"by": RUBRIC},
        budget={"teacher_tokens": 1},
    )
    assert (await rows_of(up, spec))[-1]["step"] == 1


async def test_a_student_starts_on_the_text_of_a_hosted_model(up: Up, hosted: None, data: Path) -> None:
    spec = small_spec(
        data,
        "black-box-cold-start",
        teachers=[{"name": "writer"}],
        rollout={"source": "teacher"},
        objective={"kind": "supervised"},
    )
    rows = await rows_of(up, spec)
    assert all(row["learned_tokens"] > 0 for row in rows[1:])
    assert rows[-1]["teacher_tokens"] > 0


async def test_a_run_that_must_repeat_is_refused_the_text_of_a_hosted_model(up: Up, hosted: None, data: Path) -> None:
    written: dict[str, Any] = {"rollout": {"source": "teacher"}, "objective": {"kind": "supervised"}}
    spec = small_spec(data, "repeats", teachers=[{"name": "writer"}], deterministic=True, **written)
    async with up.client() as client:
        with pytest.raises(ProblemResponse, match="'writer' does not write the same text twice") as refused:
            await client.submit(spec)
    assert (refused.value.status, refused.value.field) == (422, "deterministic")


async def test_a_reward_that_the_teacher_does_not_give_is_refused_where_it_is_named(up: Up, data: Path) -> None:
    spec = small_spec(data, "wrong", rollout=GROUP, objective={"kind": "reward"}, reward={"by": RUBRIC})
    async with up.client() as client:
        with pytest.raises(ProblemResponse, match="rubric") as refused:
            await client.submit(spec)
    assert refused.value.field == "reward.by.kind"
