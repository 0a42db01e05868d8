"""Which system calls a process and its children give up for ever: a filter in the kernel (seccomp, man 2 seccomp).

What is refused leads to the network, to memory that others share, to keys, out of the process group, or changes the
limits of other processes of the same user. A refused call fails with EPERM. Names are of Linux's tables of calls.
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # places in the data that the kernel shows to a filter
_FOREIGN = 0x40000000  # x32's numbers begin here; no other call is so high

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
Step = tuple[int, int, int, int]  # code, how far to jump if true, if false, and a constant


class Argument(NamedTuple):
    """What an argument of a call has to be under a mask. place: from 0"""

    place: int
    mask: int
    value: int


class Call(NamedTuple):
    """A system call by its numbers on both architectures. unless: allowed where all of these hold"""

    name: str
    x86_64: int
    aarch64: int
    unless: tuple[Argument, ...] = ()


# A pair of connected streams leads to nobody else, and asyncio needs one.
_CONNECTED_PAIR = (Argument(0, 0xFFFFFFFF, 1), Argument(1, 0xF, 1))  # AF_UNIX, SOCK_STREAM
_FOR_ITSELF = (Argument(0, 0xFFFFFFFF, 0),)
LEADING_OUT = (
    Call("socket", 41, 198),
    Call("socketpair", 53, 199, unless=_CONNECTED_PAIR),
    Call("io_uring_setup", 425, 425),  # it opens sockets without `socket`
    Call("setpgid", 109, 154),
    Call("setsid", 112, 157),
    Call("shmget", 29, 194),
    Call("shmat", 30, 196),
    Call("shmctl", 31, 195),
    Call("semget", 64, 190),
    Call("semop", 65, 193),
    Call("semctl", 66, 191),
    Call("semtimedop", 220, 192),
    Call("msgget", 68, 186),
    Call("msgsnd", 69, 189),
    Call("msgrcv", 70, 188),
    Call("msgctl", 71, 187),
    Call("mq_open", 240, 180),
    Call("mq_unlink", 241, 181),
    Call("add_key", 248, 217),
    Call("request_key", 249, 218),
    Call("keyctl", 250, 219),
    Call("prlimit64", 302, 261, unless=_FOR_ITSELF),
    Call("setpriority", 141, 140),
    Call("ioprio_set", 251, 30),
    Call("sched_setparam", 142, 118),
    Call("sched_setscheduler", 144, 119),
    Call("sched_setaffinity", 203, 122),
    Call("sched_setattr", 314, 274),
    Call("unshare", 272, 97),
    Call("setns", 308, 268),
    Call("mount", 165, 40),
)


def refuse(libc: ctypes.CDLL, calls: Iterable[Call]) -> bool:
    """Whether these calls are refused from now on; False changes nothing.

    It takes `no_new_privs`, and one of the two architectures whose numbers are known here.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        return False
    rules = (_rule(getattr(call, machine), call.unless) for call in calls)
    steps = [*_start(_ARCHITECTURES[machine]), *chain.from_iterable(rules), (_RETURN, 0, 0, _ALLOW)]
    program = _Program(len(steps), (_Step * len(steps))(*steps))
    return libc.prctl(_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0


def _start(architecture: int) -> Sequence[Step]:
    """A call by another architecture's table, whose numbers mean others, ends the process; x32's is refused."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _FOREIGN),
        (_RETURN, 0, 0, _REFUSE),
    ]


def _rule(number: int, unless: Sequence[Argument]) -> Sequence[Step]:
    if not unless:
        return [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    checks = [step for argument in unless for step in _check(argument)]
    return [(_EQUAL, 0, len(checks) + 1, number), *checks, (_RETURN, 0, 0, _ALLOW)]


def _check(argument: Argument) -> Sequence[Step]:
    return [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument.place),  # its lower half: both architectures are little-endian
        (_AND, 0, 0, argument.mask),
        (_EQUAL, 1, 0, argument.value),
        (_RETURN, 0, 0, _REFUSE),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("if_true", ctypes.c_uint8),
        ("if_false", ctypes.c_uint8),
        ("constant", ctypes.c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("steps", ctypes.POINTER(_Step))]
