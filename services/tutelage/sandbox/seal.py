"""What a process gives up for ever, with its children: other processes, the network, files, the service's user.

Each is tried with what the kernel allows here; `Seal` says what holds. No code runs where one of them lies open.
Numbers are of Linux's own headers, the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from tutelage.sandbox.calls import LEADING_OUT, refuse

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_BIND, _REC, _PRIVATE = 0x1000, 0x4000, 0x40000
_SET_DUMPABLE, _SET_NO_NEW_PRIVS = 4, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ALL_FILE_RIGHTS = 0x1FFF  # of Landlock's first version
_READ_FILES = 0b1101  # execute (what the loader needs), read a file, read a directory
_ALL_TCP_RIGHTS, _ALL_SCOPES = 0b11, 0b11  # bind and connect; signals and abstract sockets
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Seal:
    """Whether files of others, other processes and the network are out of reach."""

    files: bool
    processes: bool
    network: bool

    @property
    def open(self) -> list[str]:
        """What is not out of reach."""
        return [name for name, held in asdict(self).items() if not held]


def seal() -> Seal:
    """Close what can be closed. What is forked next is the first of its own process space, where that is allowed.

    Raises:
        PermissionError: Python itself is out of reach now.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    root = os.geteuid() == 0
    spaces = _NEWPID | _NEWNET | _NEWNS | _NEWIPC | (0 if root else _NEWUSER)
    spaced = libc.unshare(spaces) == 0
    if root and spaced:
        _keep_python_in_reach(libc)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    version = _landlock(libc)
    if root:
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)
    # The process that runs the tests is closed to the one that runs the answer, which has the same user.
    libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    refused = refuse(libc, LEADING_OUT)
    next(Path(sys.path[-1]).iterdir())
    alone = root or spaced or (version >= 6 and refused)
    return Seal(files=root or version >= 1, processes=alone, network=spaced or refused)


def _keep_python_in_reach(libc: ctypes.CDLL) -> None:
    """Show Python's own directory here too: its place may be in a home that another user cannot enter."""
    here = Path.cwd()
    (here / "python").mkdir()
    (here / "empty").mkdir()
    os.chdir(here / "empty")
    libc.mount(b"none", b"/", None, _REC | _PRIVATE, None)
    if libc.mount(os.fsencode(sys.base_prefix), os.fsencode(here / "python"), None, _BIND, None) == 0:
        sys.path[:] = [path.replace(sys.base_prefix, str(here / "python"), 1) for path in sys.path]


def _landlock(libc: ctypes.CDLL) -> int:
    """Leave nothing but reading what Python needs. Returns the kernel's version of Landlock, below 1 without any."""
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return version
    handled = (_ALL_FILE_RIGHTS, _ALL_TCP_RIGHTS if version >= 4 else 0, _ALL_SCOPES if version >= 6 else 0)
    fields = handled[: 1 if version < 4 else 2 if version < 6 else 3]
    attributes = (ctypes.c_uint64 * len(fields))(*fields)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(ctypes.sizeof(attributes)), 0)
    for path in {sys.base_prefix, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/zoneinfo"}:
        if Path(path).exists():
            _readable(libc, ruleset, path)
    if ruleset < 0 or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        return 0
    os.close(ruleset)
    return version


class _PathBeneath(ctypes.Structure):
    _layout_ = "ms"
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def _readable(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    directory = os.open(path, os.O_PATH)
    rule = _PathBeneath(_READ_FILES, directory)
    libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(rule), 0)
    os.close(directory)
