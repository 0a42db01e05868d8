"""The rules and the metrics as promtool reads them, which must be on the PATH."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest
from embedded_stack import Up

HERE = Path(__file__).parent
CASES = sorted(path.name for path in HERE.glob("*.yaml"))


def promtool(*arguments: str, folder: Path, given: str = "") -> str:
    """What it printed; also what it only advises against is an error."""
    command = ["promtool", *arguments]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_rules_are_rules(rules: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", "--lint-fatal", rules.name, folder=rules.parent)


@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_where_they_should_and_nowhere_else(rules: Path, name: str) -> None:
    shutil.copy(HERE / name, rules.parent)
    assert "SUCCESS" in promtool("test", "rules", name, folder=rules.parent)


def test_a_case_that_does_not_hold_is_found(rules: Path) -> None:
    shutil.copy(HERE / "queue.yaml", rules.parent)
    never = rules.read_text().replace("min(tutelage_queue_up) == 0", "min(tutelage_queue_up) == 2")
    assert never != rules.read_text()
    rules.write_text(never)
    with pytest.raises(AssertionError, match="QueueAway"):
        promtool("test", "rules", "queue.yaml", folder=rules.parent)


def test_what_services_expose_is_as_prometheus_wants_it(stack: Up, tmp_path: Path) -> None:
    [teacher] = stack.described["teachers"]
    coordinator, teacher = (httpx2.get(f"{url}/metrics").raise_for_status().text for url in (stack.url, teacher["url"]))
    assert "tutelage_train_loss{" in coordinator
    assert "tutelage_teacher_scored_tokens_total" in teacher
    for text in (coordinator, teacher):
        assert promtool("check", "metrics", folder=tmp_path, given=text) == ""
