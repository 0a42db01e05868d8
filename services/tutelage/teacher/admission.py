"""What a teacher refuses before any work is done: one sentence with the limit and the remedy."""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.engines.checks import check_groups
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    Capabilities,
    GenerateRequest,
    RewardRequest,
    ScoreGroup,
    ScoreRequest,
    Signal,
    Usage,
    needs_model,
)


class CapabilityMissing(InvalidInput):
    """This teacher cannot give what was asked; it does not approximate."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a teacher takes upon itself.

    max_tokens: of one request; max_candidates: ids at one position; max_waiting_tokens: of requests that wait
    max_waiting_items: to be graded, of all requests
    runs_code: answers may be graded by running them
    """

    max_tokens: int
    max_candidates: int
    max_waiting_tokens: int
    max_waiting_items: int
    runs_code: bool


def group_tokens(group: ScoreGroup) -> int:
    """Tokens that a group costs: its prompt once and every completion."""
    return len(group.prompt_ids) + group.scored_tokens


def admit_score(request: ScoreRequest, capabilities: Capabilities, limits: Limits, teacher: str) -> list[ScoreGroup]:
    """The request's groups, if this teacher can score all of them as asked.

    Raises:
        CapabilityMissing: a signal that the teacher does not have.
        InvalidInput: too long, too wide, too much, or not of this vocabulary.
    """
    for signal in sorted(request.signals - capabilities.signals):
        has = ", ".join(sorted(capabilities.signals)) or "none"
        raise CapabilityMissing(f"teacher {teacher!r} has no signal {signal.value!r}; it has {has}", "signals")
    _check_top_k(request.top_k, capabilities)
    groups = request.groups()
    _check_tokens(sum(map(group_tokens, groups)), limits, "sequences")
    _check_candidates(groups, limits)
    check_groups(groups, capabilities)
    return groups


def admit_generation(request: GenerateRequest, capabilities: Capabilities, limits: Limits, teacher: str) -> int:
    """The most tokens that the request can make the teacher write.

    Raises:
        CapabilityMissing: the teacher does not generate, or not as asked. InvalidInput: too many tokens.
    """
    if not capabilities.generates:
        raise CapabilityMissing(f"teacher {teacher!r} does not generate text; use another teacher for /v1/generate")
    if request.temperature == 0 and not capabilities.greedy:
        message = f"teacher {teacher!r} cannot write at temperature 0, as its upstream takes none; leave it out"
        raise CapabilityMissing(message, "temperature")
    tokens = len(request.prompts) * request.n * request.max_tokens
    _check_tokens(tokens, limits, "max_tokens")
    return tokens


def admit_reward(request: RewardRequest, capabilities: Capabilities, limits: Limits, teacher: str) -> None:
    """Raises: CapabilityMissing: a reward that this teacher's model does not give, or code that it does not run."""
    kind = request.reward.kind
    if kind == "unit_tests" and not limits.runs_code:
        raise CapabilityMissing(f"teacher {teacher!r} runs no code; start it with --run-code", "reward.kind")
    if needs_model(request.reward) and kind not in capabilities.rewards:
        has = ", ".join(sorted(capabilities.rewards)) or "none"
        message = f"teacher {teacher!r} does not give the reward {kind!r}; of those that need a model it gives {has}"
        raise CapabilityMissing(message, "reward.kind")


def admit_rows(rows: list[list[int]], limits: Limits) -> Usage:
    """What reading them takes. Raises: InvalidInput: more tokens than go in one request."""
    tokens = sum(map(len, rows))
    _check_tokens(tokens, limits, "items")
    return Usage(forward_tokens=tokens)


def require_head(capabilities: Capabilities, teacher: str) -> None:
    """Refuse /v1/head where there are no hidden states that the head belongs to."""
    if Signal.HIDDEN not in capabilities.signals:
        raise CapabilityMissing(
            f"teacher {teacher!r} gives no hidden states, so it has no head; use top_k or candidates"
        )


def _check_top_k(top_k: int | None, capabilities: Capabilities) -> None:
    if top_k is not None and top_k > capabilities.max_top_k:
        message = f"top_k is {top_k}, this teacher gives at most {capabilities.max_top_k}; ask for fewer"
        raise InvalidInput(message, "top_k")


def _check_tokens(tokens: int, limits: Limits, field: str) -> None:
    if tokens > limits.max_tokens:
        message = f"the request has up to {tokens} tokens, at most {limits.max_tokens} go in one; send it in parts"
        raise InvalidInput(message, field)


def _check_candidates(groups: list[ScoreGroup], limits: Limits) -> None:
    for i, group in enumerate(groups):
        for completion in group.completions:
            width = 0 if completion.candidate_ids is None else completion.candidate_ids.shape[1]
            if width > limits.max_candidates:
                field = f"sequences.{i}.candidate_ids"
                message = f"{field} has {width} ids at a position, at most {limits.max_candidates} go; ask for fewer"
                raise InvalidInput(message, field)
