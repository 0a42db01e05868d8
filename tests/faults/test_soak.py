"""The soak in short: faults drawn by a seed, one after another, while runs go on. `-m tests.faults soak` is long."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from harms import HARMS
from needs import Need, lacking
from soak import Soak, left_out, schedule
from stage import staged
from tests.faults.matrix import MATRIX
from watched import Memory, Watched

logging.getLogger("httpx2").setLevel(logging.WARNING)

SEED = int(os.environ.get("TUTELAGE_TEST_SEED", "0"))
MINUTES = os.environ.get("TUTELAGE_TEST_SOAK_MINUTES")
RESULT = os.environ.get("TUTELAGE_TEST_SOAK_RESULT")
SHORT = ("a teacher is killed", "the queue is flushed", "the trainer is killed", "the coordinator is killed")
ROOTS_ROWS = {12, 14, 15, 19}
RANKS_ROWS = {18}  # a run of the soak has one rank


def test_every_row_that_is_proven_has_a_class_of_its_own() -> None:
    assert {harm.row for harm in HARMS.values()} == {row.number for row in MATRIX if row.tests} - RANKS_ROWS


def test_a_schedule_follows_from_its_seed_and_has_every_class_in_each_round() -> None:
    one, two, other = (schedule(seed, list(HARMS)) for seed in (1, 1, 2))
    classes = len(HARMS)
    drawn = [
        [(name, random.random()) for name, random in (next(each) for _ in range(2 * classes))]
        for each in (one, two, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {name for name, _ in drawn[0][:classes]} == {name for name, _ in drawn[0][classes:]} == set(HARMS)


def test_who_is_not_root_leaves_out_what_only_root_can_do_and_says_why() -> None:
    found = left_out(user=1000)
    assert {each.row for each in found} == ROOTS_ROWS
    assert all("root" in each.why for each in found)
    assert lacking(Need.HOSTED, 1000) is None
    assert lacking(Need.STRACE, 0, {"mount": "/bin/mount"}.get) == "strace takes strace, which is not installed"


def test_a_process_has_grown_by_what_it_took_after_it_had_been_at_work_for_a_while() -> None:
    watched = Watched()
    for number, leak_mib in enumerate((0, 1)):  # a second; each loads its libraries for half a minute
        memory = watched.memory[number] = Memory(f"trainer {number}")
        for at_s in range(200):
            memory.note(at_s, 100 + 10 * min(at_s, 30) + leak_mib * at_s, at_work=at_s >= 30)
    assert list(watched.broken()) == ["I5: the growth of trainer 1 in MiB reached 149, at most 64 is allowed"]


async def test_a_soak_breaks_no_invariant_and_goes_on_after_every_fault(tmp_path: Path) -> None:
    missing = left_out(os.geteuid())
    every = [name for name in HARMS if name not in {each.fault for each in missing}]
    classes = SHORT if MINUTES is None else every
    seconds = 0.0 if MINUTES is None else 60 * float(MINUTES)
    sys.stderr.write(f"soak of seed {SEED}, without: {'; '.join(f'{e.fault} ({e.why})' for e in missing) or '-'}\n")
    async with staged(tmp_path, {need for name in classes for need in HARMS[name].needs}) as stage:
        soak = Soak(stage, SEED, seconds=seconds, faults=len(classes), classes=classes)
        try:
            await soak.play(*(() if MINUTES is not None else (60,)))
        except BaseException as error:
            suffered = soak.suffered[-1:] or "no fault"
            pytest.fail(f"seed {SEED} (TUTELAGE_TEST_SEED={SEED}), after {suffered}: {error!r}")
        finally:
            if RESULT is not None:
                Path(RESULT).write_text(json.dumps(soak.result(missing), indent=1) + "\n")
    assert soak.broken() == [], f"seed {SEED}"
