"""Answers lead to further requests: a run that was submitted is looked at, changed, cancelled and asked for again.

schemathesis finds what leads where in the committed files. Each scenario has a coordinator of its own, over HTTP.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from described import CHECKS, CONFIG, PUSHED, coordinator, described
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.core.errors import NoLinksFound
from schemathesis.core.transport import Response
from schemathesis.specs.openapi import checks

from tutelage.engines.fakes import listening

PATIENCE_S = 60.0  # of one request; a busy machine may hold any up
UNCALIBRATED = {"phases": {"stateful": {"link-calibration": False}}}  # else it goes by what earlier scenarios met
FOLLOWING = [*CHECKS, checks.use_after_free, checks.ensure_resource_availability]
SCENARIOS = settings(
    max_examples=40,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.large_base_example],
)


@contextmanager
def live() -> Iterator[str]:
    """The address of a coordinator that is built and served in a thread of its own."""
    address: Future[str] = Future()
    done = threading.Event()

    async def serve(folder: Path) -> None:
        async with listening(coordinator(folder)) as url:
            address.set_result(url)
            await asyncio.to_thread(done.wait)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        serving = pool.submit(asyncio.run, serve(Path(folder)))
        try:
            yield address.result(timeout=30)
        finally:
            done.set()
            serving.result()


def test_a_coordinator_answers_as_its_file_says_when_one_answer_leads_to_the_next_request() -> None:
    answered: set[tuple[str, int]] = set()
    machine: Any = described("coordinator", CONFIG | UNCALIBRATED).as_state_machine()

    class Following(machine):
        def setup(self) -> None:
            self.stack = ExitStack()
            self.url = self.stack.enter_context(live())

        def teardown(self) -> None:
            self.stack.close()

        def get_call_kwargs(self, case: Case) -> dict[str, Any]:
            return {"base_url": self.url, "timeout": PATIENCE_S}

        def before_call(self, case: Case) -> None:
            if case.operation.label == "POST /v1/runs":  # a spec made by chance is hardly ever let in
                case.body = PUSHED

        def validate_response(self, response: Response, case: Case, **_: Any) -> None:
            answered.add((case.operation.label, response.status_code))
            case.validate_response(response, checks=FOLLOWING, recorder=self.recorder)

    Following.run(settings=SCENARIOS)
    found = {label for label, status in answered if "{" in label and status < 300}
    assert len(found) >= 5, "what an answer named was asked for, and was there"


def test_no_answer_of_a_teacher_leads_to_a_further_request() -> None:
    """A teacher keeps nothing that a caller made. What names such a thing one day needs the test above."""
    with pytest.raises(NoLinksFound):
        described("teacher").as_state_machine().run()
