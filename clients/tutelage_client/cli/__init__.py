"""The command line `tutelage`: parse, do one thing, say how it went.

    parser      every command with its flags; nothing heavy is imported for --help
    values      what stands behind a flag, read
    connect     which coordinator and which key are meant, and clients that give up soon
    remedies    what went wrong and what helps
    runs fork check watch progress queue store keys audit gc score methods doctor  the commands
    show details                                tables, digits, relative times, JSON; one run on one screen
    standalone  `up` and `demo`, which belong to the services

Exit codes: 0 it worked; 2 the caller can mend it; 1 everything else; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from tutelage_client.cli.parser import parser
from tutelage_client.errors import InvalidInput, ProblemResponse, TutelageError

Command = Callable[[argparse.Namespace], Awaitable[int]]


def main() -> int:
    """The entry point; whatever goes wrong becomes one sentence on stderr and an exit code."""
    argv = sys.argv[1:]
    args = argparse.Namespace()
    try:
        if argv and argv[0] in ("up", "demo"):
            from tutelage_client.cli.standalone import execute

            execute(argv)
        parser().parse_args(argv, args)
        return asyncio.run(_execute(args))
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:  # the reader has gone, as `head` does; nothing can be said to it any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (TutelageError, OSError) as error:
        from tutelage_client.cli.remedies import sentence

        return _complain(sentence(error, args), exit_code(error))


async def _execute(args: argparse.Namespace) -> int:
    code = await commands()[args.command](args)
    sys.stdout.flush()
    return code


def commands() -> dict[str, Command]:
    """The function of each command, imported once it is known that one is wanted."""
    from tutelage_client.cli import (
        audit,
        check,
        doctor,
        fork,
        gc,
        keys,
        methods,
        queue,
        runs,
        score,
        standalone,
        store,
        watch,
    )

    return {
        "runs submit": runs.submit,
        "runs watch": watch.watch,
        "runs ls": runs.ls,
        "runs show": runs.show,
        "runs cancel": runs.steer,
        "runs pause": runs.steer,
        "runs resume": runs.steer,
        "runs fork": fork.fork,
        "runs metrics": runs.metrics,
        "runs events": runs.events,
        "runs logs": runs.logs,
        "runs model": runs.model,
        "runs check": check.check,
        "runs edit": runs.edit,
        "runs export": runs.export,
        "queue dead": queue.dead,
        "queue replay": queue.settle,
        "queue discard": queue.settle,
        "teachers ls": store.teachers_ls,
        "teachers rm": store.teachers_rm,
        "files put": store.files_put,
        "files ls": store.files_ls,
        "files rm": store.files_rm,
        "gc": gc.gc,
        "keys create": keys.create,
        "keys ls": keys.ls,
        "keys revoke": keys.revoke,
        "audit": audit.audit,
        "score": score.score,
        "methods ls": methods.ls,
        "methods show": methods.show_one,
        "doctor": doctor.doctor,
        "up": standalone.misplaced,
        "demo": standalone.misplaced,
    }


def exit_code(error: Exception) -> int:
    """2 where the caller can mend it, 1 otherwise."""
    refused = isinstance(error, ProblemResponse) and 400 <= error.status < 500
    return 2 if refused or isinstance(error, InvalidInput) else 1


def _complain(sentence: str, code: int) -> int:
    print(f"tutelage: {' '.join(sentence.split())}", file=sys.stderr)
    return code
