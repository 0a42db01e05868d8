"""An experiment keeps what came of each run as soon as it ends, and finds it again where its set-up is the same."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from embedded_stack import RUN_S, SKILL, Up, small_spec
from experiments.keeping import keep_each, set_up, write_kept

from tutelage_client.errors import TutelageError
from tutelage_client.spec import RunSpec, parse_spec
from tutelage_client.wire import RunView


async def test_what_has_ended_is_kept_while_a_run_before_it_goes_on_and_though_that_fails(
    up: Up, data: Path, tmp_path: Path
) -> None:
    kept = {name: tmp_path / f"{name}.json" for name in ("long", "short")}

    async def keep(run: RunView, path: Path) -> None:
        write_kept(path, {"steps": run.step})

    async with up.client() as client, asyncio.timeout(RUN_S):
        long = await client.submit(small_spec(data, "long", optim={"steps": 100_000}, eval=None))
        short = await client.submit(small_spec(data, "short"))
        experiment = asyncio.create_task(keep_each(client, {long.id: kept["long"], short.id: kept["short"]}, keep))
        while not kept["short"].exists():
            assert not experiment.done()
            await asyncio.sleep(0.1)
        assert json.loads(kept["short"].read_text()) == {"steps": 3}
        assert not (await client.run(long.id)).status.final
        await client.cancel(long.id)
        with pytest.raises(TutelageError, match="long cancelled"):
            await experiment
    assert kept["short"].exists() and not kept["long"].exists()


def planned(folder: Path) -> tuple[RunSpec, dict[str, Path]]:
    """A run with all its files in a folder of its own."""
    folder.mkdir()
    student = shutil.copytree(SKILL / "student", folder / "student")
    teacher = shutil.copytree(SKILL / "student", folder / "teacher")
    (folder / "train.jsonl").write_text('{"prompt": "1+1:", "answer": "2"}\n')
    spec = small_spec(folder / "train.jsonl", "one", student={"model": str(student)})
    return parse_spec(spec), {"adder": teacher}


def test_a_set_up_is_the_same_wherever_its_files_lie(tmp_path: Path) -> None:
    assert set_up(*planned(tmp_path / "here")) == set_up(*planned(tmp_path / "there"))


@pytest.mark.parametrize("changed", ["train.jsonl", "student/config.json", "teacher/config.json"])
def test_a_set_up_is_another_one_with_another_file(tmp_path: Path, changed: str) -> None:
    spec, teachers = planned(tmp_path / "here")
    before = set_up(spec, teachers)
    path = tmp_path / "here" / changed
    path.write_text(path.read_text() + "\n")
    assert set_up(spec, teachers) != before


def test_a_set_up_is_another_one_with_another_spec(tmp_path: Path) -> None:
    spec, teachers = planned(tmp_path / "here")
    assert set_up(spec.model_copy(update={"seed": 2}), teachers) != set_up(spec, teachers)
