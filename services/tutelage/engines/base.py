"""The contract of an engine: a frozen or current model that scores and generates.

Off-by-one conventions, padding and batching end inside an engine; what comes out obeys the alignment of
`tutelage_client.wire.scores`. A capability that an engine does not declare is refused before it is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from tutelage.engines.upstream.calls import Calls
from tutelage_client.wire import (
    Breaker,
    Capabilities,
    GenerateRequest,
    Generation,
    Overload,
    Prompt,
    Provenance,
    RewardItem,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)


class Tokenizer(Protocol):
    """Text to token ids of this model, and back."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that a text does not show, such as its end."""
        ...

    def encode(self, prompt: Prompt) -> list[int]:
        """Raises: InvalidInput: no tokens come out, or the messages fit no chat template."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text, special tokens spelt out."""
        ...


class Engine(Protocol):
    """One model behind one teacher name.

    calls_at_once: of `score`, `generate` and `reward` together; the batcher makes no more. With more than one, a call
    that is cancelled stops.
    """

    @property
    def calls_at_once(self) -> int: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def provenance(self) -> Provenance: ...

    @property
    def tokenizer(self) -> Tokenizer | None:
        """None where the model takes text alone."""
        ...

    async def connect(self) -> dict[str, Any]:
        """Reach the model, before anything else is asked; facts about it, for people.

        From then on `capabilities` and `provenance` hold. Called again after a failure.

        Raises:
            TutelageError: it cannot be reached, or is not what it was told to be.
        """
        ...

    async def score(
        self, groups: Sequence[ScoreGroup], signals: frozenset[Signal], top_k: int | None
    ) -> tuple[list[TokenScores], Usage]:
        """One block a completion, in order: `start` is the prompt's length, a row for each completion token."""
        ...

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        """`request.n` generations for each prompt, in order."""
        ...

    def head(self) -> dict[str, NDArray[Any]]:
        """`weight` [v, h], and where the model has them `bias` [v], `scale` [1], `softcap` [1]: float32.

        logits = softcap * tanh(scale * (hidden @ weight.T + bias) / softcap), without softcap the inner term alone.

        Raises:
            InvalidInput: this engine has no hidden states to give.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class RewardEngine(Engine, Protocol):
    """A model that values whole texts: an engine whose capabilities name the reward `reward_model`."""

    def row(self, item: RewardItem) -> list[int]:
        """Prompt and completion as the model reads them, in token ids. Raises: InvalidInput: it cannot read them."""
        ...

    async def reward(self, rows: Sequence[list[int]]) -> tuple[list[float], Usage]:
        """A finite value for each row, in order. Raises: BadScores: the model gave none."""
        ...


@runtime_checkable
class ServedEngine(Engine, Protocol):
    """An engine before a server, which has a tokenizer of its own."""

    async def compare_tokenizers(self) -> str:
        """What of it was found equal to ours, or that nothing could be. Raises: BadScores: it is another."""
        ...


@runtime_checkable
class LimitedEngine(Engine, Protocol):
    """An engine before upstreams, which have limits of their own and may fail."""

    @property
    def overload(self) -> Overload | None:
        """Why no work is taken, where that is because of such limits."""
        ...

    @property
    def calls(self) -> Calls | None:
        """To the one upstream; None where there is none, or several that have their own."""
        ...

    @property
    def breaker(self) -> Breaker | None:
        """Of the calls to the one upstream; None where there is none, or several that have their own."""
        ...
