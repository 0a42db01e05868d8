"""What cannot work does not start, and says in one sentence what to change. Missing secrets: test_secrets.py."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from deployed import ROOT

from tutelage.standalone.stack import free_port

TEACHER = str(ROOT / "examples" / "skill" / "teacher")
NO_GPU = "torch sees no GPU here; give"
# The variables are those that the images for GPUs set.
ENDS: dict[str, tuple[list[str], dict[str, str], str]] = {
    "unreachable database": (
        ["coordinator", "--database-url", f"postgresql+psycopg://tutelage@127.0.0.1:{free_port()}/tutelage"],
        {},
        "Connection refused; start that server, or mend --database-url",
    ),
    "schema of a newer release": (["coordinator"], {}, "the database has the schema 9999 of a newer release"),
    "trainer without a GPU": (["trainer"], {"TUTELAGE_TRAINER_REQUIRE_GPU": "true"}, NO_GPU),
    "teacher without a GPU": (["teacher", "--model", TEACHER], {"TUTELAGE_TEACHER_DEVICE": "cuda"}, NO_GPU),
    "vLLM without a GPU": (
        ["teacher", "--model", TEACHER],
        {"TUTELAGE_TEACHER_DEVICE": "cuda", "TUTELAGE_TEACHER_ENGINE": "vllm"},
        NO_GPU,
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_service_that_cannot_work_ends_with_one_sentence(tmp_path: Path, case: str) -> None:
    (service, *flags), variables, sentence = ENDS[case]
    data = tmp_path / "data"
    data.mkdir()
    with sqlite3.connect(data / "coordinator.db") as newer:
        newer.execute("CREATE TABLE alembic_version (version_num TEXT)")
        newer.execute("INSERT INTO alembic_version VALUES ('9999')")
    newer.close()
    done = subprocess.run(
        [sys.executable, "-m", f"tutelage.{service}", *flags],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode not in (0, 70)
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
