"""Whether an engine's answer may leave the teacher. An engine is not trusted to have validated it."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage_client.errors import BadScores
from tutelage_client.wire import Completion, ScoreGroup, Signal, TokenScores

FIELDS = {
    Signal.SAMPLED: "sampled_logprob",
    Signal.TOP_K: "topk_logprob",
    Signal.CANDIDATES: "candidate_logprob",
    Signal.ENTROPY: "entropy",
    Signal.HIDDEN: "hidden",
}


def check_scores(
    blocks: Sequence[TokenScores], groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
) -> None:
    """Refuse an answer that does not fit the question or holds what is no log-probability.

    Raises:
        BadScores: what is wrong, and in which block.
    """
    asked = [(len(group.prompt_ids), completion) for group in groups for completion in group.completions]
    if len(blocks) != len(asked):
        raise BadScores(f"the engine returned {len(blocks)} score blocks for {len(asked)} completions", "length")
    for i, (block, (start, completion)) in enumerate(zip(blocks, asked, strict=True)):
        try:
            _check_block(block, start, completion, signals, top_k)
        except ValueError as error:
            flaw = error.flaw if isinstance(error, BadScores) else "malformed"
            raise BadScores(f"score block {i}: {error}", flaw) from error


def _check_block(
    block: TokenScores, start: int, completion: Completion, signals: frozenset[Signal], top_k: int | None
) -> None:
    block.check()  # again: an engine may have made it without validation
    ids = completion.candidate_ids
    candidates = None if ids is None else ids.shape[1]
    block.require(start=start, rows=len(completion.token_ids), top_k=top_k, candidates=candidates)
    missing = [signal.value for signal in sorted(signals) if getattr(block, FIELDS[signal]) is None]
    if missing:
        raise BadScores(f"the engine left out {', '.join(missing)}")
