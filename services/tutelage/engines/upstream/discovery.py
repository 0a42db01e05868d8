"""Finding out what a server does not say: its model, and how much it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tutelage.engines.upstream.failures import UpstreamFailed, UpstreamRefused
from tutelage_client.errors import BadScores


def served_model(cards: Sequence[dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """The card of the model to ask for, out of an OpenAI-style list.

    Raises:
        UpstreamFailed: it is not served, or none was named and there are several.
    """
    names = [str(card.get("id")) for card in cards]
    if wanted is None and len(names) == 1:
        return cards[0]
    if wanted in names:
        return cards[names.index(wanted)]
    served = ", ".join(names[:10]) or "nothing"
    what = "serves several models" if wanted is None else f"does not serve {wanted!r}"
    raise UpstreamFailed(f"the upstream {what}; name one with --upstream-model: {served}")


async def largest_taken(takes: Callable[[int], Awaitable[None]], most: int) -> int:
    """The largest k, at most `most`, that the server takes; `takes` raises where it does not.

    Raises:
        UpstreamRefused, BadScores: what was said about the first k that failed, if even 1 does.
    """

    async def refused(k: int) -> UpstreamRefused | BadScores | None:
        try:
            await takes(k)
        except (UpstreamRefused, BadScores) as error:
            return error
        return None

    if await refused(most) is None:
        return most
    if (error := await refused(1)) is not None:
        raise error
    low, high = 1, most
    while high - low > 1:
        middle = (low + high) // 2
        if await refused(middle) is None:
            low = middle
        else:
            high = middle
    return low


def model_length(card: dict[str, Any], given: int | None) -> int:
    """Tokens of the longest sequence that is scored: one less than the server's limit, as it has to write one too.

    given: less than that, or all there is to know where the server says nothing

    Raises:
        UpstreamFailed: the server does not say, nor was it given; or more was given.
    """
    limit = card.get("max_model_len")
    most = limit - 1 if isinstance(limit, int) and limit >= 3 else None
    if most is not None and given is not None and given > most:
        raise UpstreamFailed(
            f"--max-length is {given}, and the upstream scores at most {most} tokens (its max_model_len is {limit}, "
            f"and it writes one); give {most} or less"
        )
    length = given if given is not None else most
    if length is None:
        raise UpstreamFailed("the upstream does not say how long a sequence may be; give --max-length")
    return length
