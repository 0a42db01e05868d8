"""Any OpenAI-compatible completions server that scores a prompt, through the `openai` library.

Two forms are known, and the first call finds out which one a server has: `prompt_logprobs`, as in vLLM, and the older
`echo` with `logprobs`. With echo the tokens come as texts; a text that could be two ids is refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, OpenAIError

from tutelage.engines.checks import most_generated
from tutelage.engines.options import ChatOptions, UpstreamOptions
from tutelage.engines.upstream.asked import Answer, Asked
from tutelage.engines.upstream.calls import Calls
from tutelage.engines.upstream.choices import read_choices
from tutelage.engines.upstream.dialect import Learned
from tutelage.engines.upstream.discovery import largest_taken, model_length, served_model
from tutelage.engines.upstream.echo import TokenTexts, read_echo, read_echoed_texts
from tutelage.engines.upstream.engine import UpstreamEngine
from tutelage.engines.upstream.failures import TryAgain, UpstreamFailed, UpstreamRefused
from tutelage.engines.upstream.http import raise_for_status, read_key
from tutelage.engines.upstream.local import read_local
from tutelage.engines.upstream.prompt_logprobs import answer_from_top_k, read_prompt_logprobs, read_spelling
from tutelage.engines.upstream.tab import Tab
from tutelage_client.errors import BadScores
from tutelage_client.http import retry_after_s
from tutelage_client.wire import GenerateRequest, Generation, Signal, Usage


class OpenaiClient:
    """The official client, with its own retries off: limits, repetition and deadlines are those of `Calls`."""

    def __init__(self, calls: Calls, key: str | None) -> None:
        self.calls = calls
        # A server without keys is sent the word that such servers document.
        self._client = AsyncOpenAI(base_url=calls.url, api_key=key or "EMPTY", max_retries=0, timeout=None)

    async def completions(self, tab: Tab, most: Usage, scored_tokens: int = 0, **body: Any) -> dict[str, Any]:
        """tab: learns of each attempt what it cost; most: of one"""
        return await self._billed(lambda: self._client.completions.create(**body), tab, most, scored_tokens)

    async def chat(self, tab: Tab, most: Usage, **body: Any) -> dict[str, Any]:
        """As `completions`."""
        return await self._billed(lambda: self._client.chat.completions.create(**body), tab, most)

    async def _billed(self, create: Callable[[], Any], tab: Tab, most: Usage, scored_tokens: int = 0) -> dict[str, Any]:
        async def attempt() -> dict[str, Any]:
            with tab.call(most) as call:
                answer = await _tried(create())
                call.answered(answer)
            return answer

        return await self.calls.make(attempt, scored_tokens)

    async def models(self) -> list[dict[str, Any]]:
        async def listed() -> Any:
            return await self._client.models.list()

        return (await self.calls.make(lambda: _tried(listed()))).get("data") or []

    async def close(self) -> None:
        await self._client.close()


class Openai:
    """The dialect of OpenAI's completions. max_top_k: as the provider documents it; more is never asked."""

    def __init__(self, client: OpenaiClient, options: UpstreamOptions, tokenizer: Any, vocabulary_size: int) -> None:
        self._client = client
        self._options = options
        self._texts = TokenTexts(tokenizer)
        self._vocabulary_size = vocabulary_size
        self._model = options.upstream_model or ""
        self._max_top_k = 1
        self._echo = False

    async def learn(self) -> Learned:
        card = await self._card()
        self._model = str(card["id"])
        self._echo = not await self._has_prompt_logprobs()
        most = min(self._options.max_top_k, self._vocabulary_size)
        self._max_top_k = await largest_taken(self._take_top_k, most)
        return Learned(
            model=self._model,
            version="unknown",
            max_top_k=self._max_top_k,
            max_length=model_length(card, self._options.max_length),
            covers_candidates=False,
            facts={"candidates": "from the top k only", "form": "echo" if self._echo else "prompt_logprobs"},
        )

    async def score(self, asked: Asked, tab: Tab) -> Answer:
        k = self._max_top_k if asked.candidate_ids is not None else asked.top_k or 0
        return await self._score(asked, k, tab)

    async def write(
        self, prompt_ids: Sequence[int], request: GenerateRequest, seed: int | None, tab: Tab
    ) -> list[Generation]:
        body = await self._client.completions(
            tab,
            most_generated([list(prompt_ids)], request.n, request.max_tokens, len(prompt_ids)),
            model=self._model,
            prompt=list(prompt_ids),
            n=request.n,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            logprobs=1,
            extra_body={"return_token_ids": True},
            **({"stop": request.stop} if request.stop else {}),
            **({} if seed is None else {"seed": seed}),
        )
        self._check_model(body)
        return read_choices(body.get("choices"), request)

    async def tokenize(self, text: str) -> list[int] | None:
        """There is no such route; what the server spells is compared instead."""

    async def spell(self, token_ids: Sequence[int]) -> list[str | None]:
        asked = Asked([0, *token_ids], 1, frozenset({Signal.SAMPLED}))
        if not self._echo:
            choice = await self._choice(asked, Tab(), extra_body={"prompt_logprobs": 0})
            return read_spelling(choice.get("prompt_logprobs"), asked)
        choice = await self._choice(asked, Tab(), echo=True, logprobs=1)
        return read_echoed_texts(choice.get("logprobs"), asked)

    async def close(self) -> None:
        await self._client.close()

    async def _card(self) -> dict[str, Any]:
        """The served model's card; a provider that lists none is believed to serve what was named."""
        try:
            return served_model(await self._client.models(), self._options.upstream_model)
        except UpstreamRefused:
            if self._options.upstream_model is None:
                raise UpstreamFailed("the upstream lists no models; name one with --upstream-model") from None
            return {"id": self._options.upstream_model}

    async def _has_prompt_logprobs(self) -> bool:
        asked = Asked([0, 0], 1, frozenset({Signal.SAMPLED}))
        try:
            choice = await self._choice(asked, Tab(), extra_body={"prompt_logprobs": 1})
        except UpstreamRefused as error:
            if error.status in (400, 422):
                return False
            raise
        return choice.get("prompt_logprobs") is not None

    async def _take_top_k(self, k: int) -> None:
        await self._score(Asked([0, 0], 1, frozenset({Signal.TOP_K}), k), k, Tab())

    async def _score(self, asked: Asked, k: int, tab: Tab) -> Answer:
        if self._echo:
            extra = {"return_tokens_as_token_ids": True}
            # At least 1: with 0 some servers give no log-probs at all.
            choice = await self._choice(asked, tab, echo=True, logprobs=max(k, 1), extra_body=extra)
            read = read_echo(choice.get("logprobs"), asked, max(k, 1), self._texts)
        else:
            choice = await self._choice(asked, tab, extra_body={"prompt_logprobs": k})
            read = read_prompt_logprobs(choice.get("prompt_logprobs"), asked, k)
        return answer_from_top_k(asked, *read)

    async def _choice(self, asked: Asked, tab: Tab, **more: Any) -> dict[str, Any]:
        tokens = len(asked.token_ids)
        body = await self._client.completions(
            tab,
            Usage(forward_tokens=tokens, generated_tokens=1),
            tokens,
            model=self._model,
            prompt=asked.token_ids,
            max_tokens=1,
            temperature=asked.temperature,
            **more,
        )
        self._check_model(body)
        choices = body.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            raise BadScores("the upstream's answer has no choice")
        return choices[0]

    def _check_model(self, body: dict[str, Any]) -> None:
        if body.get("model") not in (None, self._model):
            raise BadScores(f"the upstream answered as {body['model']!r}, asked was {self._model!r}", "mismatch")


def open_openai(options: UpstreamOptions, name: str) -> UpstreamEngine:
    """Raises: InvalidInput: the tokenizer directory or the key file cannot be used."""
    local = read_local(options.model, options.revision)
    client = open_client(options, options.tokens_at_once)
    dialect = Openai(client, options, local.tokenizer, local.vocabulary_size)
    return UpstreamEngine(options, name, local, dialect, options.max_concurrency, client.calls)


def open_client(options: UpstreamOptions | ChatOptions, tokens_at_once: int | None = None) -> OpenaiClient:
    """Raises: InvalidInput: the key file cannot be used."""
    return OpenaiClient(Calls.of(options, tokens_at_once), read_key(options.api_key_file))


async def _tried(call: Any) -> dict[str, Any]:
    """One attempt, with the library's errors as ours."""
    try:
        return (await call).model_dump()
    except APIConnectionError as error:
        never_sent = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
        raise TryAgain("unreachable" if never_sent else "lost", str(error)) from error
    except APIStatusError as error:
        raise_for_status(error.status_code, _said(error), retry_after_s(error.response.headers))
        raise UpstreamFailed(f"the upstream answered with status {error.status_code}") from error
    except (OpenAIError, AttributeError, ValueError) as error:
        raise UpstreamFailed("the upstream's answer is not in the form of the OpenAI API") from error


def _said(error: APIStatusError) -> str:
    return " ".join(error.message.split())[:300]
