"""The commands in the docs, run as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from embedded_stack import Up
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]


def script_of(page: Path) -> str:
    """All bash blocks of a page, as one script."""
    return "set -euo pipefail\n" + "\n".join(
        re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )


def test_a_run_with_curl_alone(up: Up, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "skill", tmp_path / "examples" / "skill")
    done = subprocess.run(
        ["bash", "-c", script_of(ROOT / "docs" / "http.md")],
        cwd=tmp_path,
        env=os.environ | {"TUTELAGE": up.url},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr + up.logs()
    assert "\nsucceeded\n" in done.stdout
    weights = next((tmp_path / "distilled").rglob("model.safetensors"))
    model = AutoModelForCausalLM.from_pretrained(weights.parent)
    assert model.num_parameters() > 0
