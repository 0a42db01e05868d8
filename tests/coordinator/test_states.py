"""The state machine: as a table, and as what any order of calls does to a run."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy import select

from tutelage.coordinator import leases, reports, runs, steering
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage.coordinator.states import ALLOWED, BEFORE, LEASED, TRANSITIONS, Verb, allowed
from tutelage.coordinator.tables import EventRow
from tutelage.serving import ServiceProblem
from tutelage_client.wire import CheckpointCommit, Heartbeat, Outcome, RunStatus, StepReport

STEERED = {Verb.CANCEL: steering.cancel, Verb.PAUSE: steering.pause, Verb.RESUME: steering.resume}


def test_every_status_is_in_the_table_and_can_be_reached():
    reached, frontier = set(), {RunStatus.QUEUED}
    while frontier:
        reached |= frontier
        frontier = {to for status in frontier for to in TRANSITIONS[status]} - reached
    assert reached == set(TRANSITIONS) == set(RunStatus)


def test_final_statuses_are_exactly_those_that_lead_nowhere():
    assert {status for status in RunStatus if status.final} == {s for s, onward in TRANSITIONS.items() if not onward}


def test_every_status_that_is_not_final_can_fail():
    assert all(RunStatus.FAILED in onward for status, onward in TRANSITIONS.items() if not status.final)


def test_the_last_status_before_an_end_leads_to_it():
    assert all(end in TRANSITIONS[before] for end, before in BEFORE.items())


class Life(RuleBasedStateMachine):
    """One run under calls in any order, from owners, from workers with any epoch, and from the clock."""

    database: Database
    settings: Settings
    spec: dict[str, Any]
    run_out: Callable[[str], None]

    def __init__(self) -> None:
        super().__init__()
        with self.database.write() as session:
            self.run_id = runs.submit(session, self.spec, None)[0].id
        self.epoch = 0
        self.ended: RunStatus | None = None

    def attempt(self, call: Callable[..., Any], *arguments: Any) -> ServiceProblem | None:
        """A call either works or is refused as a conflict, which is returned; it never breaks."""
        try:
            with self.database.write() as session:
                call(session, *arguments)
        except ServiceProblem as error:
            assert error.status_code == 409
            return error
        return None

    epochs = st.integers(-1, 1)

    @rule(verb=st.sampled_from(sorted(STEERED)))
    def owner_asks(self, verb: Verb) -> None:
        with self.database.read() as session:
            status = runs.find(session, self.run_id).status
        refusal = self.attempt(STEERED[verb], self.run_id)
        assert (refusal is None) == (status in ALLOWED[verb])
        assert refusal is None or refusal.allowed == allowed(status)

    @rule()
    def worker_claims(self) -> None:
        self.attempt(leases.claim_run, self.settings, self.run_id, "worker")

    @rule(status=st.sampled_from(["validating", "running", "finalizing"]), off=epochs)
    def worker_beats(self, status: Any, off: int) -> None:
        self.attempt(leases.heartbeat, self.settings, self.run_id, Heartbeat(epoch=self.epoch + off, status=status))

    @rule(step=st.integers(0, 5), off=epochs)
    def worker_steps(self, step: int, off: int) -> None:
        report = StepReport(epoch=self.epoch + off, step=step, metrics={}, student_tokens=1, teacher_tokens=0)
        self.attempt(reports.step, self.run_id, report)

    @rule(step=st.integers(0, 5), off=epochs)
    def worker_commits(self, step: int, off: int) -> None:
        commit = CheckpointCommit(epoch=self.epoch + off, step=step, path="/c", weights_sha256="0")
        self.attempt(reports.commit, self.run_id, commit)

    @rule(result=st.sampled_from(["succeeded", "failed", "cancelled", "paused", "crashed"]), off=epochs)
    def worker_ends(self, result: Any, off: int) -> None:
        self.attempt(leases.finish, self.settings, self.run_id, Outcome(epoch=self.epoch + off, result=result))

    @rule()
    def lease_runs_out(self) -> None:
        self.run_out(self.run_id)
        leases.sweep(self.database)

    @invariant()
    def history_is_a_walk_through_the_table(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(EventRow).where(EventRow.run_id == self.run_id).order_by(EventRow.id)).all()
            assert [row.id for row in rows] == list(range(1, len(rows) + 1))
            walk = [row.data for row in rows if row.type == "state"]
        for before, after in itertools.pairwise(walk):
            assert before["to"] == after["from"]
            assert RunStatus(after["to"]) in TRANSITIONS[RunStatus(after["from"])]
            assert before["epoch"] <= after["epoch"]

    @invariant()
    def final_is_final_and_only_a_leased_run_has_a_lease(self) -> None:
        with self.database.read() as session:
            run = runs.find(session, self.run_id)
            assert self.ended in (None, run.status)
            assert (run.lease_expires_at is not None) == (run.status in LEASED)
            assert (run.ended_at is not None) == run.status.final
            assert run.epoch in (self.epoch, self.epoch + 1)
            self.epoch, self.ended = run.epoch, run.status if run.status.final else None


def test_no_order_of_calls_leaves_the_table(
    database: Database, settings: Settings, spec: Callable[..., dict[str, Any]], expire: Callable[[str], None]
):
    life = type(
        "BoundLife",
        (Life,),
        {"database": database, "settings": settings, "spec": spec(), "run_out": staticmethod(expire)},
    )
    slow = [HealthCheck.too_slow]
    budget = hypothesis_settings(
        max_examples=20,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=slow,
        database=None,
    )
    run_state_machine_as_test(life, settings=budget)
