"""What goes wrong and what helps, in a sentence for the person at the command line."""

from __future__ import annotations

import argparse

from tutelage_client.cli.connect import coordinator_url
from tutelage_client.connection import key_file
from tutelage_client.errors import ProblemResponse, ServiceUnreachable

COORDINATOR_REMEDY = "start one with `tutelage up`, or give --coordinator"
TEACHER_REMEDY = "give --teacher an address that `tutelage teachers ls` shows as available"
UNAUTHORIZED = 401


def sentence(error: Exception, args: argparse.Namespace) -> str:
    return "; ".join(part for part in explained(error, args) if part)


def explained(error: Exception, args: argparse.Namespace) -> tuple[str, str | None]:
    """What went wrong and, where it is known, what helps."""
    if isinstance(error, ServiceUnreachable):
        return str(error), TEACHER_REMEDY if args.command == "score" else COORDINATOR_REMEDY
    if isinstance(error, ProblemResponse) and error.status == UNAUTHORIZED:
        return _unauthorized(error, args)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, None
    return str(error), None


def _unauthorized(error: ProblemResponse, args: argparse.Namespace) -> tuple[str, str]:
    who = f"the teacher at {args.teacher}" if args.command == "score" else f"the coordinator at {coordinator_url(args)}"
    path = key_file(args.key_file)
    if path is None:
        return f"{who} wants a key", "give the file that holds it with --key-file, or set TUTELAGE_KEY_FILE"
    if args.command != "score" and error.code == "unauthorized":
        return f"{who} refuses the key in {path}", error.detail
    return f"{who} does not know the key in {path}", "give --key-file a file with one that it knows, not its sha256"
