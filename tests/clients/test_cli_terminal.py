"""What the command line owes a person at a terminal: flags wherever they are typed, and lines that fit its width."""

from __future__ import annotations

import argparse
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Literal

import pytest

from tutelage_client.cli.parser import parser
from tutelage_client.cli.progress import Progress
from tutelage_client.cli.watch import fitting
from tutelage_client.methods import METHODS
from tutelage_client.wire import EventView

Cli = Callable[..., CompletedProcess[str]]
FIGURES = ["KL 0.9388", "accuracy 0.0312", "1,898 tok/s", "0:00 left"]


def parsed(*argv: str) -> argparse.Namespace:
    return parser().parse_args(argv)


def test_common_flags_count_before_a_command_and_after_it() -> None:
    before = parsed("--json", "--coordinator", "http://a", "runs", "ls")
    after = parsed("runs", "ls", "--json", "--coordinator", "http://a")
    assert (before.json, before.coordinator) == (after.json, after.coordinator) == (True, "http://a")
    assert parsed("--coordinator", "http://a", "runs", "ls", "--coordinator", "http://b").coordinator == "http://b"
    assert (parsed("runs", "ls").json, parsed("runs", "ls").coordinator) == (False, None)


@pytest.mark.parametrize("verb", ["up", "demo"])
def test_flags_before_a_verb_of_the_services_are_refused(cli: Cli, verb: str) -> None:
    done = cli("--json", verb)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tutelage: `tutelage {verb}` takes its flags after it; see `tutelage {verb} --help`\n"


@pytest.mark.parametrize(
    ("name", "said"),
    [("absent.json", "cannot read absent.json: No such file"), ("broken.json", "broken.json: this is no JSON: EOF")],
)
def test_a_score_request_that_cannot_be_read_is_named(cli: Cli, tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "broken.json").write_text("{")
    done = cli("score", "--teacher", "http://127.0.0.1:9", name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tutelage: {said}")
    assert done.stderr.count("\n") == 1


def test_a_teacher_that_does_not_answer_is_not_taken_for_a_coordinator(cli: Cli) -> None:
    done = cli("score", "--teacher", "http://127.0.0.1:9", "--token-ids", "1,2")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`tutelage teachers ls`" in done.stderr
    assert "tutelage up" not in done.stderr


@pytest.mark.parametrize(("width", "kept"), [(50, 4), (49, 3), (26, 2), (9, 1), (8, 0), (-5, 0)])
def test_figures_that_do_not_fit_are_left_out_from_the_end(width: int, kept: int) -> None:
    assert fitting(FIGURES, width) == "  ".join(FIGURES[:kept])


def test_only_a_column_that_may_wrap_gives_way_on_a_narrow_terminal() -> None:
    address, signals = "http://127.0.0.1:45817", "candidates entropy hidden sampled top_k"
    kinds, row = {"NAME": "left", "URL": "left", "SIGNALS": "wrap"}, ["adder", address, signals]
    lines = on_terminal(f"from tutelage_client.cli import show; show.table({kinds}, [{row}])", columns=60)
    assert all(len(line) <= 60 for line in lines)
    assert lines[1].split()[:2] == ["adder", address]
    assert " ".join(line[len("adder  ") + len(address) :].strip() for line in lines[1:]) == signals


def test_no_word_of_the_list_of_methods_is_broken_on_a_common_terminal() -> None:
    run = "import sys; sys.argv[1:] = ['methods', 'ls']; from tutelage_client.cli import main; sys.exit(main())"
    lines = on_terminal(run, columns=80)
    assert all(len(line) <= 80 for line in lines)
    words = {word for line in lines for word in line.split()}
    assert {word for each in METHODS for word in (each.name, *each.needs, *each.title.split())} <= words


def test_an_upload_shows_how_far_it_is_and_leaves_the_id(coordinator_url: str, tmp_path: Path) -> None:
    source = tmp_path / "model.tar"
    source.write_bytes(bytes(1 << 20))
    argv = ["files", "put", str(source), "--coordinator", coordinator_url]
    run = f"import sys; sys.argv[1:] = {argv}; from tutelage_client.cli import main; sys.exit(main())"
    lines = on_terminal(run, columns=80)
    assert re.search(r"reading .*sending .* 1\.0/1\.0 MB", "\n".join(lines), re.DOTALL)
    assert re.search(r"file-[0-9a-f]{32}  model\.tar  1\.049MB; a spec names it file:file-", lines[-1])


def on_terminal(code: str, columns: int) -> list[str]:
    """The lines that Python code writes to a terminal of this width, without control codes."""
    ours, theirs = pty.openpty()
    env = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=theirs, env=env) as writer:
        os.close(theirs)
        written = b"".join(iter(lambda: heard(ours), b""))
        assert writer.wait(timeout=60) == 0
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;]*m", "", written.decode()).splitlines()


def heard(terminal: int) -> bytes:
    """What was written next; nothing once nobody writes any more, which Linux calls an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def test_the_bar_keeps_the_last_known_accuracy_and_says_what_is_left_until_the_last_step() -> None:
    progress, began = Progress(steps=2), datetime(2026, 1, 1, tzinfo=UTC)
    progress.take(event(began, kind="state", to="running"))
    progress.take(event(began, kind="metrics", step=0, accuracy=0.25))
    progress.take(event(began + timedelta(seconds=75), kind="metrics", step=1, reverse_kl=2.0))
    assert progress.figures(progress.newest) == ["KL 2", "1:15 left"]
    assert progress.figures(progress.last) == ["KL 2", "accuracy 0.2500", "1:15 left"]
    progress.take(event(began + timedelta(seconds=150), kind="metrics", step=2, reverse_kl=1.0))
    assert progress.figures(progress.last) == ["KL 1", "accuracy 0.2500"]


def event(at: datetime, kind: Literal["state", "metrics"], **data: float | str) -> EventView:
    return EventView(id=1, type=kind, level="info", message="", data=data, created_at=at)
