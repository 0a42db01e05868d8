"""What the fake servers have in common: the toy model, its tokenizer, the traps, and the load that they feign."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from time import monotonic
from typing import Annotated, Any, Literal, get_args

import numpy as np
from fastapi import Body as InBody
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from numpy.typing import NDArray

from tutelage.engines.fake import FakeEngine, log_softmax
from tutelage.engines.options import FakeOptions
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import GenerateRequest, Generation

Trap = Literal[
    "broken",  # every call ends in a server error
    "drift",  # two calls with the same tokens differ
    "forbidden",  # the key is not accepted
    "impossible",  # some tokens have probability 0
    "length_unsaid",  # the model's card does not say how long a sequence may be
    "logits",  # log-prob fields hold logits
    "logits_below_0",  # so do they, of a model whose logits are all negative
    "model_changes",  # after the start another model answers, under the same name or under another
    "other_tokenizer",  # the server cuts texts into other ids
    "overloaded",  # the first calls are refused with Retry-After
    "over_quota",  # after some calls each is refused for a while, with seconds of Retry-After
    "rate_limited",  # again and again a call is refused, with a second of Retry-After
    "no_tokenize",  # there is no route that cuts a text
    "other_replica",  # the weights of improbable tokens are not those of its like
    "row_short",  # a row is missing at the end
    "row_shifted",  # rows are one place off
    "uniform",  # the weights did not arrive
    "unnormalised",  # a term of the normaliser is missing
    # vLLM
    "defaults",  # a generation config changes what is not said
    "dtype",  # scores come in half precision
    "flat_ids",  # 0.31: one list of ids for all rows
    "huge_header",  # the .npy header claims terabytes
    "ids_ignored",  # an older server drops fields that it does not know
    "low_cap",  # --max-logprobs 20, its default
    "null_scores",  # rows that came out of the prefix cache have no scores
    "out_of_memory",  # to score more tokens at a time than its longest sequence has is its end
    "scale_out_off",  # started without --enable-scale-out
    "v1_runner",  # only the V2 model runner scores given ids
    # SGLang
    "output_only",  # logprob_start_len is ignored
    # completions
    "echo_ignored",  # only the written tokens have log-probs
    "few_entries",  # fewer top_logprobs than asked, silently
    "lapses",  # every other answer lacks a row at the end, and is billed
    "no_prompt_logprobs",  # vLLM's extension is not known
    "texts",  # tokens are named by text, not by id
    # chat
    "calls_tools",  # every text ends in a call of a tool, and is billed
    "hangs",  # after the first call none is ever answered
    "ignores_n",  # one answer is written, whatever n is
    "max_tokens",  # max_completion_tokens is not known
    "no_logprobs",  # the model refuses to give log-probs
    "no_n",  # more than one answer is refused
    "no_seed",  # a seed is refused
    "no_usage",  # an answer does not say what it cost
    "one_sampler",  # temperature and top_p are refused together
    "own_temperature",  # any temperature but 1 is refused
    "thinks",  # an answer that may not be long is refused, as nothing is left after thinking
    "refuses",  # the content filter steps in
    "truncates",  # every text is cut
]
Json = dict[str, Any]
Body = Annotated[Json, InBody()]
TRAPS: tuple[Trap, ...] = get_args(Trap)
OFFSET_NATS = {"logits": 7.0, "logits_below_0": -35.0, "unnormalised": -2.0}
IMPROBABLE = -6.0  # log-prob
REFUSED_CALLS = 3
CALLS_BETWEEN_REFUSALS = 256
QUOTA_CALLS, OVER_QUOTA_S, QUOTA_RETRY_AFTER_S = 8, 15.0, 5


class ToyServer:
    """A toy model to be served under `name`. `calls` counts requests, `refused` those over the rate.

    answers, billed_tokens: that a hosted one gave, and what was read and written for them

    With "model_changes" it is another from call 40 on.
    """

    def __init__(
        self, options: FakeOptions, traps: Iterable[Trap] = (), name: str = "toy", changes_at: int = 40
    ) -> None:
        self.traps: Collection[Trap] = frozenset(traps)
        self.name = name
        self.calls = 0
        self.refused = 0
        self.answers = 0
        self.billed_tokens = 0
        self.options = options
        self._changes_at = changes_at
        self._over_quota_since_s: float | None = None
        longer = {"max_length": options.max_length + 1}  # a server writes a token after the longest that it scores
        self._engine = FakeEngine(options.model_copy(update=longer), name)
        self._other = FakeEngine(options.model_copy(update=longer | {"seed": options.seed + 1}), name)
        table = self._engine.logprob_VV
        if "impossible" in self.traps:
            table[:, 3] = -np.inf
        if "other_replica" in self.traps:
            table[table < IMPROBABLE] -= 5
        if "uniform" in self.traps:
            table[:] = np.random.default_rng(0).normal(scale=1e-5, size=table.shape)  # as rounding has it
        self._engine.logprob_VV = log_softmax(table)
        self._offset = sum(nats for trap, nats in OFFSET_NATS.items() if trap in self.traps)

    @property
    def changed(self) -> bool:
        return "model_changes" in self.traps and self.calls > self._changes_at

    @property
    def engine(self) -> FakeEngine:
        return self._other if self.changed else self._engine

    def logprobs(self, ids: list[int]) -> NDArray[np.float64]:
        """Row i speaks of what follows ids[i], [T, V]."""
        table = self.engine.logprob_VV
        if "drift" in self.traps:
            table = np.roll(table, self.calls, axis=1)
        rows = table[ids] + self._offset
        return np.roll(rows, 1, axis=0) if "row_shifted" in self.traps else rows

    def prompt_logprobs(self, ids: list[int], k: int) -> list[Json | None]:
        """The map of each row: the token itself, then the best k by rank. -inf is -9999, as JSON has none."""
        rows: list[Json | None] = [None]
        for logprob_V, own in zip(self.logprobs(ids), ids[1:], strict=False):
            order = np.argsort(-logprob_V, kind="stable")
            best = [own, *order[:k].tolist()]
            rank = {int(i): r for r, i in enumerate(order, 1)}
            rows.append(
                {
                    str(i): {
                        "logprob": max(float(logprob_V[i]), -9999.0),
                        "rank": rank[i],
                        "decoded_token": self.spell(i),
                    }
                    for i in best
                }
            )
        return rows[:-1] if "row_short" in self.traps else rows

    async def write(self, prompt: list[int] | str, body: dict[str, Any], **more: Any) -> list[Generation]:
        """Text of the toy."""
        (generations,), _ = await self.engine.generate(self.request(prompt, body, **more))
        return [_moved(one, self._offset) for one in generations]

    def request(self, prompt: list[int] | str, body: dict[str, Any], **more: Any) -> GenerateRequest:
        """What is to be written, by the fields that all APIs share."""
        known = ("n", "max_tokens", "temperature", "top_p", "seed")
        asked = {key: body[key] for key in known if body.get(key) is not None} | more
        return GenerateRequest.model_validate({"prompts": [prompt], "stop": body.get("stop") or [], **asked})

    def bill(self, read: int, written: int) -> Json | None:
        """What an answer costs, in tokens, as it says itself."""
        self.answers += 1
        self.billed_tokens += read + written
        usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
        return None if "no_usage" in self.traps else usage

    def spell(self, token_id: int) -> str:
        return f"t{token_id + 1}" if "other_tokenizer" in self.traps else f"t{token_id}"

    def tokenize(self, text: str) -> list[int]:
        """As the tokenizer directory does: an unknown word is the last token."""
        last = self.options.vocabulary_size - 1
        known = {f"t{i}": i for i in range(last + 1)}
        ids = [known.get(word, last) for word in text.split()]
        return ids[1:] if "other_tokenizer" in self.traps else ids

    def app(self, title: str) -> FastAPI:
        """An app that counts calls and feigns trouble before any route is asked."""
        app = FastAPI(title=f"{title} in small")

        @app.middleware("http")
        async def trouble(request: Request, call_next: Any) -> Any:
            self.calls += 1
            if "forbidden" in self.traps:
                return error(401, "Unauthorized")
            if "overloaded" in self.traps and self.calls <= REFUSED_CALLS:
                status = 503 if title == "vLLM" else 429
                return JSONResponse({"error": {"message": "too busy"}}, status, headers={"Retry-After": "0"})
            if "rate_limited" in self.traps and self.calls % CALLS_BETWEEN_REFUSALS == 0:
                self.refused += 1
                return JSONResponse({"error": {"message": "rate limit"}}, 429, headers={"Retry-After": "1"})
            if self._is_over_quota():
                self.refused += 1
                retry_after = {"Retry-After": str(QUOTA_RETRY_AFTER_S)}
                return JSONResponse({"error": {"message": "over your quota"}}, 429, headers=retry_after)
            if "broken" in self.traps:
                return error(500, "Internal Server Error")
            return await call_next(request)

        @app.exception_handler(InvalidInput)
        async def refuse(_: Request, refused: Exception) -> JSONResponse:
            return error(400, str(refused), refused.field if isinstance(refused, InvalidInput) else None)

        return app

    def _is_over_quota(self) -> bool:
        if "over_quota" not in self.traps or self.calls <= QUOTA_CALLS:
            return False
        if self._over_quota_since_s is None:
            self._over_quota_since_s = monotonic()
        return monotonic() - self._over_quota_since_s < OVER_QUOTA_S

    def models(self, **more: Any) -> dict[str, Any]:
        """An OpenAI-style list of what is served."""
        if "length_unsaid" in self.traps:
            more.pop("max_model_len", None)
        return {
            "object": "list",
            "data": [{"id": self.name, "object": "model", "owned_by": "toy", "created": 0} | more],
        }

    def check_ids(self, ids: Any, longest: int) -> list[int]:
        """Raises: InvalidInput: not ids of this model, or too many."""
        if not isinstance(ids, list) or not all(isinstance(i, int) for i in ids):
            raise InvalidInput("give token ids")
        if any(not 0 <= i < self.options.vocabulary_size for i in ids):
            raise InvalidInput("Token id out of vocabulary")
        if len(ids) > longest:
            raise InvalidInput(f"the prompt has {len(ids)} tokens, at most {longest} go")
        return ids


def _moved(one: Generation, nats: float) -> Generation:
    return one.model_copy(update={"logprobs": [logprob + nats for logprob in one.logprobs or ()]})


def error(status: int, message: str, param: str | None = None) -> JSONResponse:
    """An error as OpenAI-style servers write it."""
    content = {"message": message, "type": "BadRequestError", "param": param, "code": status}
    return JSONResponse({"error": content}, status)
