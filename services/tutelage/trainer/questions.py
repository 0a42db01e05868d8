"""What to ask a teacher about a rollout, given the run's objective, and how the answer is checked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.trainer.watching import NOTHING, Watched
from tutelage_client.errors import BadScores
from tutelage_client.spec import RunSpec, required_signals, size_asked
from tutelage_client.wire import (
    Completion,
    EntryDtype,
    Provenance,
    Reward,
    RewardReply,
    RewardRequest,
    Rollout,
    ScoreGroup,
    ScoreReply,
    ScoreRequest,
    Signal,
    TokenScores,
)

_ENTRIES = frozenset({Signal.TOP_K, Signal.CANDIDATES, Signal.HIDDEN})  # what `entry_dtype` narrows


class TeacherChanged(BadScores):
    """The reply comes from another teacher than the one that the run began with."""


def needs_candidates(spec: RunSpec) -> int | None:
    """How many of the student's own most probable tokens the question names, if the objective wants them."""
    return size_asked(spec.objective, Signal.CANDIDATES)


def question(
    spec: RunSpec,
    rollout: Rollout,
    candidate_ids: NDArray[np.int32] | None,
    hidden_dtype: EntryDtype = "float32",
    watched: Watched = NOTHING,
) -> ScoreRequest:
    """The score request for every completion token of one rollout.

    hidden_dtype: what loses nothing of hidden states; watched: what is asked for diagnostics beside
    """
    signals = required_signals(spec) | watched.signals
    completion = Completion(token_ids=rollout.completion_ids, candidate_ids=candidate_ids)
    return ScoreRequest(
        sequences=(ScoreGroup(prompt_ids=rollout.prompt_ids, completions=(completion,)),),
        signals=signals,
        top_k=size_asked(spec.objective, Signal.TOP_K) or watched.top_k,
        own_batch=spec.deterministic,
        entry_dtype=hidden_dtype if signals & _ENTRIES == {Signal.HIDDEN} else "float32",
    )


def job_id(run_id: str, rollouts: Sequence[Rollout], teacher: str, payload: bytes, attempt: int) -> str:
    """The same question of the same run is the same job, so that asking again after a crash costs nothing."""
    about = "+".join(rollout.id for rollout in rollouts)
    parts = f"{run_id}/{about}/{teacher}/{attempt}/".encode()
    return hashlib.sha256(parts + payload).hexdigest()[:32]


def rewards_checked(request: RewardRequest, reply: RewardReply, provenance: Provenance) -> tuple[Reward, ...]:
    """The reply's rewards, if there is one for each item and they come from the teacher that this run began with.

    Raises:
        TeacherChanged, BadScores: as `checked`.
    """
    check_unchanged(reply.provenance, provenance)
    if len(reply.rewards) != len(request.items):
        raise BadScores(f"the teacher returned {len(reply.rewards)} rewards for {len(request.items)} items")
    return reply.rewards


def check_unchanged(found: Provenance, provenance: Provenance) -> None:
    """Raises TeacherChanged where the reply is another teacher's than at the start."""
    changed = [k for k, v in provenance if getattr(found, k) != v]
    if changed:
        raise TeacherChanged(f"the teacher's {', '.join(changed)} changed while the run was going on")


def checked(request: ScoreRequest, reply: ScoreReply, provenance: Provenance) -> TokenScores:
    """The reply's one block, if it answers the question and comes from the teacher that this run began with.

    Raises:
        TeacherChanged: another model, tokenizer, engine or precision than at the start.
        BadScores: other rows or columns than asked.
    """
    check_unchanged(reply.provenance, provenance)
    group = request.groups()[0]
    completion = group.completions[0]
    if len(reply.scores) != 1:
        raise BadScores(f"the teacher returned {len(reply.scores)} blocks for one sequence")
    scores = reply.scores[0]
    ids = completion.candidate_ids
    scores.require(
        start=len(group.prompt_ids),
        rows=len(completion.token_ids),
        top_k=request.top_k,
        candidates=None if ids is None else ids.shape[1],
    )
    missing = [s.value for s in sorted(request.signals) if FIELD[s.value] not in scores.arrays()]
    if missing:
        raise BadScores(f"the teacher left out {', '.join(missing)}")
    return scores


FIELD = {
    "sampled": "sampled_logprob",
    "top_k": "topk_logprob",
    "candidates": "candidate_logprob",
    "entropy": "entropy",
    "hidden": "hidden",
}
