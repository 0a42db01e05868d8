"""Every command in the docs is one that the programs take.

`sh` blocks and transcripts are run as well, see tests/stack/test_docs.py. Other `console` blocks cannot be run on one
machine in a test: they install, stay in the foreground, or speak of other machines. Their flags are only given to the
real parsers.
"""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest
from pages import FENCE, PAGES, ROOT, blocks, page_id

from tutelage.coordinator.settings import Settings as CoordinatorSettings
from tutelage.sampler.settings import Settings as SamplerSettings
from tutelage.standalone.__main__ import parser as standalone
from tutelage.teacher.settings import Settings as TeacherSettings
from tutelage.trainer.settings import Settings as TrainerSettings
from tutelage_client.cli import commands as cli_commands
from tutelage_client.cli.parser import parser

SERVICES = {
    "tutelage.coordinator": CoordinatorSettings,
    "tutelage.sampler": SamplerSettings,
    "tutelage.teacher": TeacherSettings,
    "tutelage.trainer": TrainerSettings,
}
COMMAND = re.compile(
    r"(?:^|[$(|;&!])\s*((?:\S*/)?(?:tutelage|python3? -m tutelage\.\w+|make) [^|;&)<>\n]*)", re.MULTILINE
)
NAMES = cli_commands()
SHELL = re.compile(r"\"?\$\w+\"?")


def commands(page: Path) -> list[list[str]]:
    """Each command with its arguments; what the shell would put in is a plain word."""
    text = "\n".join(blocks(page, "sh", "bash", "console"))
    text = re.sub(r"\\\n\s*", " ", text)
    return [shlex.split(SHELL.sub("x", found), comments=True) for found in COMMAND.findall(text)]


WITH_COMMANDS = [page for page in PAGES if commands(page)]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=page_id)
def test_every_command_is_one_that_its_parser_takes(page: Path) -> None:
    for program, *arguments in commands(page):
        if program == "make":
            targets = re.findall(r"^([\w-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {argument for argument in arguments if "=" not in argument} <= set(targets), f"make {arguments}"
        elif program.startswith("python"):
            check_service(arguments[1], arguments[2:])
        else:
            check_cli(arguments)


def check_cli(arguments: list[str]) -> None:
    takes = standalone() if arguments[0] in ("up", "demo") else parser()
    try:
        takes.parse_args(arguments, argparse.Namespace())
    except SystemExit as refused:
        assert refused.code in (0, None), f"tutelage {' '.join(arguments)}"


def check_service(module: str, arguments: list[str]) -> None:
    known = {"--" + name.replace("_", "-") for name in SERVICES[module].model_fields}
    flags = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    assert flags <= known, f"python -m {module} has no {', '.join(flags - known)}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_named_in_a_sentence_is_there(page: Path) -> None:
    for words in re.findall(r"`(?:\S*/)?tutelage ([a-z]+(?: [a-z]+)?)", FENCE.sub("", page.read_text())):
        assert any(f"{name} ".startswith(f"{words} ") for name in NAMES) or words.split()[0] in NAMES, (
            f"tutelage {words}"
        )


def test_the_pages_are_read() -> None:
    """A pattern that finds nothing would pass everything."""
    found = [command for page in WITH_COMMANDS for command in commands(page)]
    assert len(found) > 25
    assert {command[0].rpartition("/")[2] for command in found} >= {"tutelage", "python", "make"}
