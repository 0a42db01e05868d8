"""A score block in the two shapes that other clients know: OpenAI's columns, and vLLM's map a token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tutelage.teacher.spelling import Speller
from tutelage_client.wire import PromptLogprob, TextLogprobs, TokenScores

IMPOSSIBLE = -9999.0  # -inf, as vLLM writes it: JSON has no infinity


def text_logprobs(
    scores: TokenScores | None,
    ids: Sequence[int],
    first: int,
    named: list[str],
    k: int,
    name: Callable[[int, int], str] | None,
) -> TextLogprobs:
    """The columns of the tokens ids[first:], without their offsets. A token without a score has null.

    named: how each of these tokens is written; name: how another one is, behind the one before; None writes its id
    """
    own: list[float | None] = []
    top: list[dict[str, float] | None] = []
    for position, spelt in enumerate(named, first):
        row = _row(scores, position)
        if scores is None or row is None:
            own.append(None)
            top.append(None)
            continue
        entries: dict[str, float] = {}
        for token_id, logprob in _best(scores, row, k):
            written = f"token_id:{token_id}" if name is None else name(token_id, ids[position - 1])
            entries.setdefault(spelt if token_id == ids[position] else written, logprob)
        own.append(_sampled(scores, row))
        entries[spelt] = max(_sampled(scores, row), entries.get(spelt, IMPOSSIBLE))
        top.append(entries)
    return TextLogprobs(tokens=named, token_logprobs=own, top_logprobs=top, text_offset=[])


def prompt_entries(
    scores: TokenScores | None, prompt_ids: Sequence[int], k: int, speller: Speller
) -> list[dict[str, PromptLogprob] | None]:
    """For each token of the prompt the best k and itself, by id; null where there is no score, as for the first."""
    rows: list[dict[str, PromptLogprob] | None] = []
    for position, own in enumerate(prompt_ids):
        row = _row(scores, position)
        if scores is None or row is None:
            rows.append(None)
            continue
        ranked = list(enumerate(_best(scores, row, max(k, 1)), 1))
        rank = next((place for place, (token_id, _) in ranked if token_id == own), len(ranked) + 1)
        kept = [(i, logprob, place) for place, (i, logprob) in ranked[:k] if i != own]
        entries = sorted([*kept, (own, _sampled(scores, row), rank)], key=lambda entry: entry[2])
        rows.append(
            {
                str(i): {"logprob": lp, "rank": place, "decoded_token": speller.name(i, prompt_ids[position - 1])}
                for i, lp, place in entries
            }
        )
    return rows


def _row(scores: TokenScores | None, position: int) -> int | None:
    if scores is None or not 0 <= (row := position - scores.start) < scores.rows or not scores.valid[row]:
        return None
    return row


def _sampled(scores: TokenScores, row: int) -> float:
    assert scores.sampled_logprob is not None
    return max(float(scores.sampled_logprob[row]), IMPOSSIBLE)


def _best(scores: TokenScores, row: int, k: int) -> list[tuple[int, float]]:
    if scores.topk_ids is None or scores.topk_logprob is None:
        return []
    logprobs = scores.topk_logprob[row, :k].tolist()
    return [(i, max(lp, IMPOSSIBLE)) for i, lp in zip(scores.topk_ids[row, :k].tolist(), logprobs, strict=True)]
