"""What one kind of server adds to `UpstreamEngine`: how it is asked, and how its answers are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tutelage.engines.upstream.asked import Answer, Asked
from tutelage.engines.upstream.tab import Tab
from tutelage_client.wire import GenerateRequest, Generation


@dataclass(frozen=True, slots=True)
class Learned:
    """What a server said and showed of itself.

    covers_candidates: every candidate gets a score, not only one in the top k
    keeps_prompts: completions after one prompt are cheaper one after the other
    revision, dtype: of the weights, where they can be known
    facts: for people, served in the result of the probe
    """

    model: str
    version: str
    max_top_k: int
    max_length: int
    covers_candidates: bool
    keeps_prompts: bool = False
    revision: str | None = None
    dtype: str = "unknown"
    facts: dict[str, Any] = field(default_factory=dict)


class Dialect(Protocol):
    """Calls may overlap. Each raises `UpstreamFailed`, or `BadScores` where an answer must not be believed.

    A server that bills puts its attempts on the tab; of one that does not, what it does is counted by `UpstreamEngine`.
    """

    async def learn(self) -> Learned:
        """Find out what the server is and can; called before anything else, and again after it was away."""
        ...

    async def score(self, asked: Asked, tab: Tab, /) -> Answer:
        """The arrays of the signals asked for, of one sequence."""
        ...

    async def write(
        self, prompt_ids: Sequence[int], request: GenerateRequest, seed: int | None, tab: Tab, /
    ) -> list[Generation]:
        """`request.n` continuations of one prompt."""
        ...

    async def tokenize(self, text: str) -> list[int] | None:
        """Ids of a text by the server's own tokenizer, without special tokens; None where it has no such route."""
        ...

    async def spell(self, token_ids: Sequence[int]) -> list[str | None]:
        """How the server itself spells each token, None where its answers do not say."""
        ...

    async def close(self) -> None: ...
