"""A hosted chat model that returns text: it writes and judges, it never scores.

Log-probs of its own text, where it gives them, are no score of a student's text and are not offered as one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from tutelage.engines.checks import most_generated
from tutelage.engines.openai import OpenaiClient, open_client
from tutelage.engines.options import ChatOptions
from tutelage.engines.upstream.choices import REASONS, plain
from tutelage.engines.upstream.failures import UpstreamFailed
from tutelage.engines.upstream.surface import Surface, learn_surface
from tutelage.engines.upstream.tab import Tab, all_paid
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    Breaker,
    Capabilities,
    GenerateRequest,
    Generation,
    Overload,
    Prompt,
    Provenance,
    ScoreGroup,
    Signal,
    TokenScores,
    Usage,
)

log = logging.getLogger(__name__)

REFUSALS = ("content_filter", "refusal")
MOST_IDENTITIES = 16


class ChatEngine:
    """A chat API behind the contract of `base.Engine`, without any signal."""

    def __init__(self, options: ChatOptions, name: str, client: OpenaiClient) -> None:
        self.calls_at_once = options.max_concurrency
        self._model = options.upstream_model
        self._client = client
        self._answered_as: list[str] = []
        self._surface = Surface()
        self.calls = client.calls
        self.tokenizer = None
        self.capabilities = Capabilities(
            signals=frozenset(),
            max_top_k=0,
            max_length=options.max_length,
            vocabulary_size=None,
            covers_candidates=False,
            exact=False,
            writes_by_seed=False,
            rewards=frozenset({"rubric", "pairwise"}),
        )
        self.provenance = Provenance(
            teacher=name,
            model=options.upstream_model,
            model_revision="unknown",
            tokenizer_fingerprint="unknown",
            engine="chat",
            engine_version="unknown",
            dtype="unknown",
        )

    @property
    def overload(self) -> Overload | None:
        return self.calls.refusals.overload

    @property
    def breaker(self) -> Breaker | None:
        return self.calls.breaker.state

    async def connect(self) -> dict[str, Any]:
        """Learn which model answers and which parameters it takes, from a few words of it."""
        self._surface = await learn_surface(self._greeted)
        greedy = "temperature" in self._surface.takes
        if not greedy:
            log.warning("the upstream takes no temperature 0; it judges at its own", extra={"upstream": self._model})
        self.capabilities = self.capabilities.model_copy(update={"greedy": greedy})
        judges_at = "temperature 0" if greedy else "the model's own temperature, as it takes no other"
        return {"upstream_model": self._answered_as[-1], "judges_at": judges_at} | self._surface.facts()

    async def score(
        self,
        groups: Sequence[ScoreGroup],  # noqa: ARG002 - the contract's
        signals: frozenset[Signal],  # noqa: ARG002
        top_k: int | None,  # noqa: ARG002
    ) -> tuple[list[TokenScores], Usage]:
        """Refused: log-probs of given tokens cannot be had from here."""
        raise InvalidInput("a chat model returns text only; it scores nothing", "signals")

    async def generate(self, request: GenerateRequest) -> tuple[list[list[Generation]], Usage]:
        """Answers to texts or messages. One that the model refuses is empty, with `finish_reason` "refused".

        Raises:
            UpstreamFailed: a prompt has no answer. No further call begins, and its usage counts those that did.
        """
        prompts = [_messages(prompt, i) for i, prompt in enumerate(request.prompts)]
        n = request.n if "n" in self._surface.takes else 1
        calls = [
            partial(self._written, prompt, request, n, i * request.n + first)
            for i, prompt in enumerate(prompts)
            for first in range(0, request.n, n)
        ]
        written, usage = await all_paid(calls)
        texts = [text for some in written for text in some]
        return [texts[first : first + request.n] for first in range(0, len(texts), request.n)], usage

    def head(self) -> dict[str, NDArray[Any]]:
        """Refused: there are no hidden states."""
        raise InvalidInput("a chat model has no hidden states to give")

    async def close(self) -> None:
        await self._client.close()

    async def _greeted(self, parameters: dict[str, Any]) -> dict[str, Any]:
        body = await self._asked(Tab(), Usage(), [{"role": "user", "content": "Say yes."}], parameters)
        if not isinstance(body.get("choices"), list) or not body["choices"]:
            raise UpstreamFailed("the upstream wrote no answer; --upstream must be the base of a chat API")
        return body

    async def _written(
        self, messages: list[dict[str, Any]], request: GenerateRequest, n: int, place: int, tab: Tab
    ) -> list[Generation]:
        """`n` answers. place: of the first among all of the request, by which its seed counts up"""
        seed = None if request.seed is None else (request.seed + place) % 2**63
        most = most_generated([messages], n, request.max_tokens, self.capabilities.max_length)
        body = await self._asked(tab, most, messages, self._surface.parameters(request, n, seed))
        choices = body.get("choices") or []
        if len(choices) != n:
            raise UpstreamFailed(f"the upstream wrote {len(choices)} answers, asked were {n}")
        try:
            return [_generation(choice, keep_logprobs=plain(request)) for choice in choices]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UpstreamFailed("the upstream's answer is not in the form of the OpenAI API") from error

    async def _asked(
        self, tab: Tab, most: Usage, messages: list[dict[str, Any]], parameters: dict[str, Any]
    ) -> dict[str, Any]:
        body = await self._client.chat(tab, most, model=self._model, messages=messages, **parameters)
        self._note_identity(body)
        return body

    def _note_identity(self, body: dict[str, Any]) -> None:
        """Every model that ever answered under the name is part of who speaks, so that a reply shows a change.

        Raises:
            UpstreamFailed: there were too many of them to be one teacher.
        """
        found = f"{body.get('model')} {body.get('system_fingerprint') or ''}".strip()
        if found in self._answered_as:
            return
        if len(self._answered_as) == MOST_IDENTITIES:
            raise UpstreamFailed(
                f"the upstream answers as {found!r}, after {MOST_IDENTITIES} others; name a pinned --upstream-model "
                "or restart this teacher"
            )
        self._answered_as.append(found)
        self.provenance = self.provenance.model_copy(update={"model_revision": ", ".join(self._answered_as)})


def open_chat(options: ChatOptions, name: str) -> ChatEngine:
    """Raises: InvalidInput: the key file cannot be used."""
    return ChatEngine(options, name, open_client(options))


def _messages(prompt: Prompt, i: int) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages = [part for part in prompt if isinstance(part, dict)]
    if len(messages) != len(prompt) or not messages:
        raise InvalidInput(f"prompts.{i} is token ids; a chat model takes text or messages", f"prompts.{i}")
    return messages


def _generation(choice: dict[str, Any], *, keep_logprobs: bool) -> Generation:
    message = choice.get("message") or {}
    reason = choice.get("finish_reason")
    if reason in REFUSALS or message.get("refusal"):
        return Generation(text="", finish_reason="refused")
    if reason not in REASONS:
        raise UpstreamFailed(f"the upstream ended a text with {reason!r}, which is no usable end")
    entries = (choice.get("logprobs") or {}).get("content") or []
    logprobs = [entry["logprob"] for entry in entries] if keep_logprobs and entries else None
    return Generation(text=message.get("content") or "", logprobs=logprobs, finish_reason=REASONS[reason])
