"""The soak in short: faults drawn by a seed, one after another, while runs go on. `-m tests.faults soak` is long."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

import pytest
from harms import HARMS
from soak import Soak, schedule, staged

logging.getLogger("httpx2").setLevel(logging.WARNING)

SEED = int(os.environ.get("TUTELAGE_TEST_SEED", "0"))
MINUTES = os.environ.get("TUTELAGE_TEST_SOAK_MINUTES")
RESULT = os.environ.get("TUTELAGE_TEST_SOAK_RESULT")
SHORT = ("a teacher is killed", "the queue is flushed", "the trainer is killed", "the coordinator is killed")


def test_a_schedule_follows_from_its_seed_and_has_every_class_in_each_round() -> None:
    one, two, other = (schedule(seed, list(HARMS)) for seed in (1, 1, 2))
    drawn = [
        [(name, random.random()) for name, random in (next(each) for _ in range(60))] for each in (one, two, other)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {name for name, _ in drawn[0][:30]} == {name for name, _ in drawn[0][30:]} == set(HARMS)


async def test_a_soak_breaks_no_invariant_and_goes_on_after_every_fault(tmp_path: Path) -> None:
    given = {"seconds": 0.0, "faults": len(SHORT), "classes": SHORT}
    if MINUTES is not None:
        given = {"seconds": 60 * float(MINUTES), "faults": len(HARMS), "classes": list(HARMS)}
    sys.stderr.write(f"soak of seed {SEED}\n")
    async with staged(tmp_path) as stage:
        soak = Soak(stage, SEED, **given)
        try:
            await soak.play(*(() if MINUTES is not None else (60,)))
        except BaseException as error:
            suffered = soak.suffered[-1:] or "no fault"
            pytest.fail(f"seed {SEED} (TUTELAGE_TEST_SEED={SEED}), after {suffered}: {error!r}")
        finally:
            if RESULT is not None:
                Path(RESULT).write_text(json.dumps(soak.result(), indent=1) + "\n")
    assert soak.broken() == [], f"seed {SEED}"
