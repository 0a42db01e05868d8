"""The dead letters of a run, for its owner."""

from __future__ import annotations

from fastapi import APIRouter

from tutelage.coordinator.access import Guarded
from tutelage.coordinator.audit import DeedOf
from tutelage.coordinator.letters import Letters
from tutelage.serving import answers
from tutelage_client.wire import DeadLetterView, Page

AWAY = answers("database_unavailable", "queue_unavailable")


def router(letters: Letters) -> APIRouter:
    api = APIRouter(route_class=Guarded, prefix="/v1/runs/{run_id}/dead-letters", tags=["dead letters"], responses=AWAY)

    @api.get("", responses=answers("run_not_found", "no_queue"))
    async def list_dead_letters(run_id: str) -> Page[DeadLetterView]:
        """Questions about the run's rollouts that a teacher gave up, all of them, with the history of each."""
        return Page(data=await letters.of(run_id), next=None)

    one = answers("run_not_found", "dead_letter_not_found", "no_queue")

    @api.post("/{job_id}/replay", responses=one | answers("run_is_final", "no_queue"))
    async def replay_dead_letter(run_id: str, job_id: str, deed: DeedOf) -> DeadLetterView:
        """Put it back to work, once. A step still to be done learns from the answer; one that is done does not."""
        return await letters.replay(run_id, job_id, deed)

    @api.delete("/{job_id}", responses=one)
    async def discard_dead_letter(run_id: str, job_id: str, deed: DeedOf) -> DeadLetterView:
        """Forget it; a step that asks the same question again asks it anew."""
        return await letters.discard(run_id, job_id, deed)

    return api
