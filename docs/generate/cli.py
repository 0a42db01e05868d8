"""docs/reference/cli.md: every command and flag, from the parsers themselves."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from docs.generate.markdown import code, table
from pydantic_settings import BaseSettings

from tutelage.coordinator.settings import Settings as CoordinatorSettings
from tutelage.sampler.settings import Settings as SamplerSettings
from tutelage.standalone.__main__ import parser as standalone
from tutelage.teacher.settings import Settings as TeacherSettings
from tutelage.trainer.exits import ExitCode
from tutelage.trainer.settings import Settings as TrainerSettings
from tutelage_client.cli.parser import parser

INTRO = """# Commands

`tutelage` is the client, and with `up` and `demo` the whole stack on one machine. Its exit codes: 0 it worked; 2 you
can mend it, and one sentence on stderr says how; 1 everything else; 130 Ctrl-C. `runs submit --watch` and `runs watch`
end with 0 for a run that succeeded, 2 for one that failed by its owner's mistake, 1 for any other end.

With `--json` a command prints JSON; one that follows a run prints a JSON object a line.
"""
EXITS = {
    ExitCode.DONE: "the run ended: it succeeded or was cancelled",
    ExitCode.USER_ERROR: "the run's owner can mend it: spec, data, student, or divergence of the loss",
    ExitCode.TEACHER_LOST: "the teacher cannot be used",
    ExitCode.CRASHED: "a crash; worth another attempt",
    ExitCode.DRAINED: "stopped after a checkpoint, as asked; another attempt goes on from there",
    ExitCode.FENCED: "a newer attempt owns the run; nothing was written after that was known",
}


def cli_page() -> str:
    parts = [INTRO, "## `tutelage`\n", "These flags may stand before a command or after it.\n", _flags(parser())]
    commands = {name: command for name, command in _commands(parser()) if name not in ("tutelage up", "tutelage demo")}
    for name, command in commands.items():
        parts += [f"## `{_usage(name, command)}`\n", _sentence(command.description), _flags(command, common=True)]
    for name, command in _commands(standalone()):
        parts += [f"## `{_usage(name, command)}`\n", _sentence(_help(standalone(), name)), _flags(command)]
    parts.append("# Services\n\nEvery flag is also an environment variable; a flag wins.\n")
    for module, settings in (
        ("coordinator", CoordinatorSettings),
        ("teacher", TeacherSettings),
        ("trainer", TrainerSettings),
        ("sampler", SamplerSettings),
    ):
        parts += [f"## `python -m tutelage.{module}`\n", _settings(settings)]
    rows = [[str(int(exit_code)), exit_code.name, EXITS[exit_code]] for exit_code in ExitCode]
    parts += ["## Exit codes of `python -m tutelage.trainer --run ID`\n", table(("code", "name", "meaning"), rows)]
    return "\n".join(part for part in parts if part)


def _commands(root: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands that do something, by their full name."""
    groups = [action for action in root._actions if isinstance(action, argparse._SubParsersAction)]  # no public way
    for group in groups:
        for command in group.choices.values():
            yield from _commands(command)
    if not groups:
        yield root.prog, root


def _help(root: argparse.ArgumentParser, name: str) -> str:
    [group] = [action for action in root._actions if isinstance(action, argparse._SubParsersAction)]
    return next(str(choice.help) for choice in group._choices_actions if f"{root.prog} {choice.dest}" == name)


def _sentence(text: str | None) -> str:
    return f"{(text or '')[:1].upper()}{(text or '')[1:]}.\n"


def _usage(name: str, command: argparse.ArgumentParser) -> str:
    arguments = [action for action in command._actions if not action.option_strings]
    shown = [str(action.metavar or action.dest) for action in arguments]
    return " ".join([name, *(f"[{s}]" if a.nargs == "?" else s for a, s in zip(arguments, shown, strict=True))])


def _flags(command: argparse.ArgumentParser, *, common: bool = False) -> str:
    """common: leave out what every command has."""
    hidden = {"help", "json", "coordinator", "key_file"} if common else {"help"}
    rows = [
        [_name(action), _text(action)]
        for action in command._actions
        if action.dest not in hidden and not isinstance(action, argparse._SubParsersAction)
    ]
    return table(("flag", "meaning"), rows)


def _name(action: argparse.Action) -> str:
    if not action.option_strings:
        return code(action.metavar or action.dest)
    takes_value = action.nargs != 0
    value = f" {action.metavar or action.dest.upper()}" if takes_value else ""
    if takes_value and action.choices:
        value = f" {{{','.join(map(str, action.choices))}}}"
    return code(action.option_strings[-1] + value)


def _text(action: argparse.Action) -> str:
    text = str(action.help or "")
    shown = action.default not in (None, argparse.SUPPRESS, False) and action.default != []
    notes = [f"default `{action.default}`"] if shown and "default" not in text else []
    return "; ".join([text, *notes, *(["required"] if action.required and action.option_strings else [])])


def _told(default: Any) -> Any:
    """Several stand in one line with commas, as they are given."""
    return ",".join(default) if isinstance(default, tuple) else default


def _settings(settings: type[BaseSettings]) -> str:
    prefix = settings.model_config.get("env_prefix", "")
    rows = []
    for name, field in settings.model_fields.items():
        made = field.default_factory is not None or isinstance(field.default, BaseSettings) or name == "fake_options"
        default = "" if made or field.default in (None, ()) else code(_told(field.default))
        rows.append(
            [code("--" + name.replace("_", "-")), code(prefix + name.upper()), default, field.description or ""]
        )
    return table(("flag", "environment", "default", "meaning"), rows)
