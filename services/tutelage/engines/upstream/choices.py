"""Continuations in the shape of OpenAI's completions."""

from __future__ import annotations

from typing import Any, Literal

from tutelage.engines.upstream.failures import UpstreamFailed
from tutelage_client.wire import GenerateRequest, Generation

REASONS: dict[Any, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}


def plain(request: GenerateRequest) -> bool:
    """Whether text is drawn from the model's own distribution, so that log-probs of it are beyond doubt."""
    return request.temperature == 1 and request.top_p == 1


def read_choices(choices: Any, request: GenerateRequest) -> list[Generation]:
    """`request.n` continuations in the server's order.

    Raises:
        UpstreamFailed: another number of them, or one that ended in no usual way.
    """
    if not isinstance(choices, list) or len(choices) != request.n:
        got = len(choices) if isinstance(choices, list) else 0
        raise UpstreamFailed(f"the upstream wrote {got} continuations, asked were {request.n}")
    ordered = sorted(choices, key=lambda choice: choice.get("index", 0))
    return [_generation(choice, keep_logprobs=plain(request)) for choice in ordered]


def _generation(choice: dict[str, Any], *, keep_logprobs: bool) -> Generation:
    reason = choice.get("finish_reason")
    if reason not in REASONS:
        raise UpstreamFailed(f"the upstream ended a text with {reason!r}, which is no usable end")
    logprobs = choice.get("logprobs") or {}
    token_ids = choice.get("token_ids")
    values = logprobs.get("token_logprobs") if keep_logprobs else None
    if values is not None and (token_ids is None or len(values) != len(token_ids)):
        values = None
    return Generation(
        text=choice.get("text") or "", token_ids=token_ids, logprobs=values, finish_reason=REASONS[reason]
    )
