"""A hosted chat model that returns text: it writes and judges, it never scores.

Log-probs of its own text, where it gives them, are no score of a student's text and are not offered as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from numpy.typing import NDArray

from tutelage.engines.checks import most_generated
from tutelage.engines.openai import OpenaiClient, open_client
from tutelage.engines.options import ChatOptions
from tutelage.engines.upstream.choices import REASONS, plain
from tutelage.engines.upstream.failures import UpstreamFailed, UpstreamRefused
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

REFUSALS = ("content_filter", "refusal")
MOST_IDENTITIES = 16


class ChatEngine:
    """A chat API behind the contract of `base.Engine`, without any signal."""

    def __init__(self, options: ChatOptions, name: str, client: OpenaiClient) -> None:
        self.calls_at_once = options.max_concurrency
        self._model = options.upstream_model
        self._client = client
        self._answered_as: list[str] = []
        self._gives_logprobs = True
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
        """Write one token, and learn which model answers and whether it gives log-probs of its text."""
        question = GenerateRequest(prompts=["Say yes."], max_tokens=1)
        try:
            await self._written([{"role": "user", "content": "Say yes."}], question, None, Tab())
        except UpstreamRefused as error:
            if error.status not in (400, 422) or not self._gives_logprobs:
                raise
            self._gives_logprobs = False
            await self._written([{"role": "user", "content": "Say yes."}], question, None, Tab())
        return {"upstream_model": self._answered_as[-1], "output_logprobs": self._gives_logprobs}

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
        seeds = [None if request.seed is None else (request.seed + i * request.n) % 2**63 for i in range(len(prompts))]
        pairs = zip(prompts, seeds, strict=True)
        return await all_paid([partial(self._written, prompt, request, seed) for prompt, seed in pairs])

    def head(self) -> dict[str, NDArray[Any]]:
        """Refused: there are no hidden states."""
        raise InvalidInput("a chat model has no hidden states to give")

    async def close(self) -> None:
        await self._client.close()

    async def _written(
        self, messages: list[dict[str, Any]], request: GenerateRequest, seed: int | None, tab: Tab
    ) -> list[Generation]:
        body = await self._client.chat(
            tab,
            most_generated([messages], request.n, request.max_tokens, self.capabilities.max_length),
            model=self._model,
            messages=messages,
            n=request.n,
            max_completion_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            **({"stop": request.stop} if request.stop else {}),
            **({} if seed is None else {"seed": seed}),
            **({"logprobs": True} if self._gives_logprobs else {}),
        )
        self._note_identity(body)
        choices = body.get("choices") or []
        if len(choices) != request.n:
            raise UpstreamFailed(f"the upstream wrote {len(choices)} answers, asked were {request.n}")
        try:
            return [_generation(choice, keep_logprobs=plain(request)) for choice in choices]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UpstreamFailed("the upstream's answer is not in the form of the OpenAI API") from error

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
