"""One run, two teachers in processes of their own, whose hidden states have different sizes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from embedded_stack import Up, finished, small_spec

from tutelage_client.errors import ProblemResponse
from tutelage_client.wire import RunStatus

ROUTES = [{"name": "adder", "tags": ["large"]}, {"name": "novice", "tags": ["small"]}]


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tagged") / "problems.jsonl"
    lines = [
        {"prompt": f"{a}+{b}:", "answer": str(a + b), "tag": "large" if a > 5 else "small"}
        for a in (2, 3, 7, 8)
        for b in (4, 6)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def test_each_line_is_marked_by_its_own_teacher(up: Up, tagged: Path) -> None:
    spec = small_spec(tagged, "two-teachers", teachers=ROUTES, rollout={"prompts_per_step": 8})
    async with up.client() as client:
        run = await finished(up, (await client.submit(spec)).id)
        assert run.status is RunStatus.SUCCEEDED, f"{run.error}\n{up.logs()}"
        rows = (await client.metrics(run.id))[1:]
        registered = {each.name: each.info.provenance for each in await client.teachers()}
    assert run.teachers == {name: registered[name] for name in ("adder", "novice")}
    for row in rows:
        assert row["learned_tokens/adder"] + row["learned_tokens/novice"] == row["learned_tokens"]
        assert math.isfinite(row["reverse_kl/adder"]) and math.isfinite(row["reverse_kl/novice"])
        assert row["teacher_tokens/adder"] + row["teacher_tokens/novice"] == row["teacher_tokens"]
    # The novice is the student as it was: before the first step they are one distribution.
    assert rows[0]["reverse_kl/novice"] == pytest.approx(0, abs=1e-5)
    assert rows[0]["reverse_kl/adder"] > 0.001


async def test_a_line_that_no_teacher_takes_fails_the_run_before_its_first_rollout(up: Up, tagged: Path) -> None:
    spec = small_spec(tagged, "unrouted", teachers=[{"name": "adder", "tags": ["large"]}])
    async with up.client() as client:
        run = await finished(up, (await client.submit(spec)).id)
    assert run.error is not None
    assert (run.status, run.error.category, run.error.field) == (RunStatus.FAILED, "user", "data.train")
    assert "line 1" in run.error.message and "'small'" in run.error.message and "'large'" in run.error.message


async def test_a_teacher_that_does_not_exist_is_named_by_its_place(up: Up, tagged: Path) -> None:
    teachers = [ROUTES[0], {"name": "nobody", "tags": ["small"]}]
    async with up.client() as client:
        with pytest.raises(ProblemResponse) as refused:
            await client.submit(small_spec(tagged, "unknown", teachers=teachers))
    assert (refused.value.code, refused.value.field) == ("unknown_teacher", "teachers.1.name")
