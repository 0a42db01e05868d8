"""The demo's text stage from end to end: the real services, the real specs, models of a few thousand weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tutelage.standalone.demo import demo
from tutelage.standalone.stages import LANGUAGE

SPECS = Path(__file__).parents[2] / "examples" / "language"


@pytest.fixture
def assets(models_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "examples" / "language"
    folder.mkdir(parents=True)
    for arm in LANGUAGE.arms:
        shutil.copy(SPECS / f"{arm}.toml", folder)
    for name, prompts in (("prompts", ("a b c", "d", "e f")), ("eval", ("g h", "i"))):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in prompts))
    shutil.copytree(models_folder, tmp_path / "build" / "language")
    return folder.parent


async def test_every_arm_is_run_downloaded_measured_and_reported(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    await demo(out, assets, [LANGUAGE], short=True)
    [stage] = json.loads((out / "result.json").read_text())["stages"]
    assert [arm["name"] for arm in stage["arms"]] == list(LANGUAGE.arms)
    assert len({arm["before"] for arm in stage["arms"]}) == 1
    for arm in stage["arms"]:
        assert (out / "models" / arm["name"] / "model.safetensors").is_file()
        assert arm["after"] != arm["before"]
        assert arm["teacher_tokens"] >= 500
    report = (out / "report.html").read_text()
    assert "g h" in report
    assert "What they write" in report
