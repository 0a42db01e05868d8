"""Every command with its flags, as argparse objects. Imports little else, so that --help comes at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

from tutelage_client.cli import values

SCOPES = (
    "runs:read",
    "runs:write",
    "runs:lease",
    "rollouts:read",
    "files:read",
    "files:write",
    "teachers:read",
    "teachers:write",
    "audit:read",
    "metrics:read",
    "keys:admin",
    "projects:admin",
)
DESCRIPTION = "Distil language models on their own text: submit runs, follow them, ask teachers."


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, like every other error of this command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"tutelage: {message}; `{self.prog} --help` shows what is possible\n")


class _Version(argparse.Action):
    """Looks the version up when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"tutelage {version('tutelage')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    root = Parser(prog="tutelage", description=DESCRIPTION, allow_abbrev=False)
    root.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _add_common(root)
    nouns = root.add_subparsers(metavar="COMMAND", required=True)
    _add_runs(nouns)
    _add_queue(nouns)
    _add_store(nouns)
    _add_keys(nouns)
    _add_audit(nouns)
    _add_score(nouns)
    _add_methods(nouns)
    _add(nouns, "doctor", "check this machine, the coordinator and its teachers")
    for verb, help_ in (
        ("up", "start the whole stack on this machine"),
        ("demo", "distil a small student and show what came of it"),
    ):
        # Reached only with a flag before the verb; otherwise the services parse what follows it.
        nouns.add_parser(verb, help=f"{help_} (see `tutelage {verb} --help`)").set_defaults(command=verb)
    return root


def _add_common(to: argparse.ArgumentParser, **default: Any) -> None:
    """The flags that may stand before a command and after it; what stands after it counts."""
    where = "default: $TUTELAGE_COORDINATOR, else ./tutelage-data/stack.json, else http://127.0.0.1:8400"
    to.add_argument("--json", action="store_true", help="print JSON instead of text", **default)
    to.add_argument("--coordinator", metavar="URL", help=f"the coordinator to talk to ({where})", **default)
    to.add_argument(
        "--key-file",
        metavar="FILE",
        type=Path,
        help="a file with the bearer key of the coordinator or teacher (default: $TUTELAGE_KEY_FILE)",
        **default,
    )


def _add(group: Any, name: str, help_: str, *, command: str | None = None) -> argparse.ArgumentParser:
    """One command with the flags that all have."""
    added: argparse.ArgumentParser = group.add_parser(name, help=help_, description=help_, allow_abbrev=False)
    added.set_defaults(command=command or name)
    _add_common(added, default=argparse.SUPPRESS)
    return added


def _add_runs(nouns: Any) -> None:
    runs = nouns.add_parser("runs", help="submit, follow, steer and inspect runs").add_subparsers(
        metavar="COMMAND", required=True
    )
    submit = _add(runs, "submit", "queue the run that a spec describes", command="runs submit")
    submit.add_argument("spec", type=Path, metavar="SPEC.toml", help="its paths are relative to the file")
    submit.add_argument("--watch", action="store_true", help="follow the run to its end; Ctrl-C leaves it running")
    ls = _add(runs, "ls", "list runs, the newest first", command="runs ls")
    ls.add_argument("--status", metavar="S", help="only runs in this status, such as running or failed")
    ls.add_argument("--limit", type=values.count, default=50, metavar="N", help="at most this many (default 50)")
    for verb, help_ in (
        ("show", "everything about one run"),
        ("watch", "follow a run to its end; Ctrl-C leaves it running"),
        ("cancel", "end a run without a result; its checkpoints stay"),
        ("pause", "stop a run after a checkpoint, until it is resumed"),
        ("resume", "queue a paused run again"),
        ("events", "the history of a run"),
    ):
        _add_run_id(_add(runs, verb, help_, command=f"runs {verb}"))
    fork = _add(runs, "fork", "queue a run that begins at a checkpoint of another one", command="runs fork")
    _add_run_id(fork)
    fork.add_argument("--step", type=values.step, metavar="N", help="of the checkpoint (default: the newest)")
    fork.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting that differs, as in optim.lr=1e-5 or teachers.0.outage_budget_s=600; with nothing behind the = "
        "it takes its default",
    )
    fork.add_argument("--watch", action="store_true", help="follow the run to its end; Ctrl-C leaves it running")
    metrics = _add(runs, "metrics", "what the trainer measured, one row a step", command="runs metrics")
    _add_run_id(metrics)
    metrics.add_argument("--last", type=values.count, metavar="N", help="only the last N steps")
    logs = _add(runs, "logs", "the end of what a launched trainer wrote", command="runs logs")
    _add_run_id(logs)
    logs.add_argument("--epoch", type=values.count, metavar="N", help="of this attempt (default: the newest)")
    logs.add_argument("--lines", type=values.count, default=1000, metavar="N", help="at most this many (default 1000)")
    model = _add(runs, "model", "download the final model of a run", command="runs model")
    _add_run_id(model)
    model.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty directory")

    export = _add(
        runs, "export", "write what there is of a run into a folder, for others to read", command="runs export"
    )
    _add_run_id(export)
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty directory")
    _add_edit(runs)
    check = _add(runs, "check", "hold a run's record to what is promised; exit 1 if it is broken", command="runs check")
    _add_run_id(check)
    check.add_argument(
        "--like",
        type=values.run_id,
        metavar="ID",
        help="a run of the same deterministic spec: the weights must be the same",
    )


def _add_edit(runs: Any) -> None:
    edit = _add(runs, "edit", "change the name, the labels or the note of a run", command="runs edit")
    _add_run_id(edit)
    edit.add_argument("--name", metavar="NAME", help="another name; the spec keeps its own")
    edit.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="as often as there are; with nothing behind the = it is taken away",
    )
    edit.add_argument("--note", metavar="TEXT", help="a remark; an empty one takes it away")


def _add_run_id(command: argparse.ArgumentParser) -> None:
    command.add_argument("run_id", type=values.run_id, metavar="ID", help="as `tutelage runs ls` lists it")


def _add_queue(nouns: Any) -> None:
    queue = nouns.add_parser("queue", help="questions that a teacher gave up").add_subparsers(
        metavar="COMMAND", required=True
    )
    _add_run_id(_add(queue, "dead", "the dead letters of a run, with every delivery", command="queue dead"))
    for verb, help_ in (
        ("replay", "put dead letters back to work; a step that is still to be done learns from the answer"),
        ("discard", "forget dead letters"),
    ):
        settled = _add(queue, verb, help_, command=f"queue {verb}")
        _add_run_id(settled)
        settled.add_argument("job_ids", nargs="+", metavar="JOB", help="as `tutelage queue dead ID` lists it")


def _add_store(nouns: Any) -> None:
    teachers = nouns.add_parser("teachers", help="the registered teachers").add_subparsers(
        metavar="COMMAND", required=True
    )
    _add(teachers, "ls", "list the registered teachers", command="teachers ls")
    removed = _add(teachers, "rm", "take a teacher that was stopped off the list", command="teachers rm")
    removed.add_argument("name", metavar="NAME", help="as `tutelage teachers ls` lists it")
    forget = _add(nouns, "gc", "delete rollouts and files of ended runs; what they learned stays")
    forget.add_argument(
        "--days", type=values.count, required=True, metavar="N", help="of runs that ended more than N days ago"
    )
    forget.add_argument(
        "--files", action="store_true", help="also their checkpoints and unpacked inputs: none can be forked afterwards"
    )
    forget.add_argument(
        "--audit-days", type=values.count, metavar="N", help="also entries of the audit that are older (default: none)"
    )
    files = nouns.add_parser("files", help="upload, list and delete files").add_subparsers(
        metavar="COMMAND", required=True
    )
    put = _add(files, "put", "upload a file; a spec names it as file:ID", command="files put")
    put.add_argument("path", type=Path, metavar="PATH", help="data, or a model's folder as a tar archive")
    _add(files, "ls", "list uploaded files, the newest first", command="files ls")
    gone = _add(files, "rm", "delete a file that no run needs which has not ended", command="files rm")
    gone.add_argument("id", metavar="ID", help="as `tutelage files ls` lists it")


def _add_keys(nouns: Any) -> None:
    keys = nouns.add_parser("keys", help="make, list and revoke keys of the coordinator").add_subparsers(
        metavar="COMMAND", required=True
    )
    create = _add(keys, "create", "make a key and print its secret, this once", command="keys create")
    create.add_argument("name", metavar="NAME", help="whose key it is")
    create.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=SCOPES,
        metavar="SCOPE",
        help=f"what it may be used for, as often as there are: {', '.join(SCOPES)}",
    )
    create.add_argument("--project", metavar="NAME", help="what it belongs to (default: that of the key you ask with)")
    create.add_argument("--days", type=values.count, metavar="N", help="refuse it after so many days (default: never)")
    create.add_argument(
        "--requests-per-s", type=float, metavar="N", help="answer at most so many requests a second (default: any)"
    )
    create.add_argument(
        "--budget-tokens",
        type=values.count,
        metavar="N",
        help="its runs take so many tokens of teachers in all (default: any)",
    )
    create.add_argument(
        "--budget-usd", type=float, metavar="X", help="its runs cost so many dollars in all (default: any)"
    )
    _add(keys, "ls", "list keys, the newest first", command="keys ls")
    revoke = _add(keys, "revoke", "refuse a key from now on", command="keys revoke")
    revoke.add_argument("key_id", metavar="ID", help="as `tutelage keys ls` lists it")


def _add_audit(nouns: Any) -> None:
    audit = _add(nouns, "audit", "who did what at the coordinator, and who was refused, the newest first")
    audit.add_argument("--actor", metavar="KEY", help="only what was done by this key, by its id or its name")
    audit.add_argument("--action", metavar="A", help="only this, such as run.cancel, key.create or refused")
    audit.add_argument("--target", metavar="ID", help="only what was done to this, such as a run")
    audit.add_argument("--limit", type=values.count, default=50, metavar="N", help="at most this many (default 50)")


def _add_score(nouns: Any) -> None:
    score = _add(nouns, "score", "ask a teacher for its log-probabilities of given tokens")
    score.add_argument("request", nargs="?", metavar="FILE", help="a score request as JSON, - for standard input")
    score.add_argument("--teacher", required=True, metavar="URL", help="the teacher to ask")
    score.add_argument("--token-ids", type=values.ids, metavar="1,2,3", help="the sequence")
    score.add_argument("--start", type=values.count, default=1, metavar="N", help="first position to score (default 1)")
    score.add_argument("--top-k", type=values.count, metavar="K", help="also the K most probable tokens")
    score.add_argument("--entropy", action="store_true", help="also the entropy")


def _add_methods(nouns: Any) -> None:
    methods = nouns.add_parser("methods", help="the named methods of the literature").add_subparsers(
        metavar="COMMAND", required=True
    )
    _add(methods, "ls", "list the named methods and which of them a preset can name", command="methods ls")
    show = _add(methods, "show", "everything about one method, with its composition", command="methods show")
    show.add_argument("name", metavar="NAME", help="as `tutelage methods ls` lists it")
