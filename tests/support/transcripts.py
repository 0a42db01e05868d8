"""Transcripts in the docs: `console` blocks in which a command stands behind "$ ", and what it printed below it.

They are written by running them (`make transcripts`), and run again by the tests, which hold them to what comes out,
whatever its ids, numbers and times.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from pages import FENCE

PROMPT = "$ "
HOME = "/home/you/tutelage"  # where the docs have their reader's clone
URL = "http://127.0.0.1:8400"
NUMBER = r"-?\d[\d,.]*(?:e-?\d+)?[kMGT]?"
VARYING = (
    (r"run-\w+", "ID"),
    (rf"{NUMBER} days {NUMBER} h|{NUMBER} h {NUMBER} min|{NUMBER} min {NUMBER} s|{NUMBER} s\b", "TIME"),
    (r"just now|(?:TIME|\d+ \w+) ago", "AGO"),
    (NUMBER, "N"),
    (r"[ \t]+", " "),
)


@dataclass(frozen=True, slots=True)
class Said:
    """One command of a transcript and what it printed."""

    command: str
    output: str


def is_transcript(language: str, text: str) -> bool:
    return language == "console" and text.startswith(PROMPT)


def transcripts(page: Path) -> list[Said]:
    """Every command of the page's transcripts, in order."""
    return [
        said
        for language, text in FENCE.findall(page.read_text())
        if is_transcript(language, text)
        for said in read(text)
    ]


def read(block: str) -> list[Said]:
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return [Said(command, output) for command, output in zip(parts[::2], parts[1::2], strict=True)]


def recorded(block: str, first: int, folder: Path) -> str:
    """The script of a transcript's block: what each command prints is also in a file of its number."""
    lines = (
        f"{{ {said.command}; }} 2>&1 | tee {shlex.quote(str(folder / str(first + number)))}"
        for number, said in enumerate(read(block))
    )
    return "\n".join(lines)


def settled(output: str) -> list[str]:
    """What of an output is the same each time, line by line."""
    for pattern, word in VARYING:
        output = re.sub(pattern, word, output)
    return [line.strip() for line in output.strip().splitlines()]


def rewritten(page: Path, outputs: list[str]) -> str:
    """The page's text with these outputs in place of those that it has."""
    left = iter(outputs)

    def anew(found: re.Match[str]) -> str:
        if not is_transcript(found[1], found[2]):
            return found[0]
        return "```console\n" + "".join(f"{PROMPT}{said.command}\n{next(left)}" for said in read(found[2])) + "```"

    return FENCE.sub(anew, page.read_text())
