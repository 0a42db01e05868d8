"""`tutelage methods`: the table and one entry of it, as text and as JSON, without any service."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest

from tutelage_client.methods import METHODS, method

Cli = Callable[..., CompletedProcess[str]]


@pytest.fixture
def environment() -> dict[str, str]:
    """No coordinator is there to be asked."""
    return {"TUTELAGE_COORDINATOR": "http://127.0.0.1:9"}


def test_methods_are_listed_one_a_line(cli: Cli) -> None:
    head, *lines = cli("methods", "ls").stdout.splitlines()
    assert head.split() == ["NAME", "STATUS", "ON-POLICY", "NEEDS", "TITLE"]
    assert [line.split()[0] for line in lines] == [each.name for each in METHODS]
    assert "gkd                    built" in "\n".join(lines)


def test_the_list_as_json_is_the_table(cli: Cli) -> None:
    listed = json.loads(cli("methods", "ls", "--json").stdout)
    assert listed == {"data": [each.model_dump(mode="json") for each in METHODS], "next": None}


def test_what_is_shown_of_a_built_method_ends_with_its_composition(cli: Cli) -> None:
    facts, _, toml = cli("methods", "show", "revisiting-opd").stdout.partition("\n\n")
    for fact in ("sum_S p^ log(p^/q^)", "strict", "https://arxiv.org/abs/2603.25562", "k 32"):
        assert fact in facts
    assert tomllib.loads(toml) == method("revisiting-opd").composition


def test_what_is_shown_of_another_says_why_it_is_not_built(cli: Cli) -> None:
    for name in ("tip", "lion"):
        shown = cli("methods", "show", name).stdout
        assert (method(name).missing or method(name).out_of_scope or "") in shown
        assert "[objective]" not in shown
    assert json.loads(cli("methods", "show", "tip", "--json").stdout) == method("tip").model_dump(mode="json")


def test_an_unknown_name_is_refused_with_the_nearest(cli: Cli) -> None:
    done = cli("methods", "show", "minilm")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "tutelage: there is no method 'minilm'; did you mean 'minillm'?\n"
