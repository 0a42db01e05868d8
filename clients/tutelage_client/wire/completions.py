"""OpenAI's legacy completions with vLLM's extensions, as far as a teacher means them.

Log-probabilities here are those of the model at temperature 1 over its whole vocabulary. JSON has no -inf; as in vLLM
it is -9999.0. What would change their meaning and is not applied is refused, and so is every field that is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema, model_validator
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from tutelage_client.wire.generating import StopText
from tutelage_client.wire.message import Message
from tutelage_client.wire.refusal import refused
from tutelage_client.wire.scoring import MOST_SEQUENCES

_TEXT = {"type": "string"}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_PROMPTS = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1},
        _IDS,
        {"type": "array", "items": _IDS, "minItems": 1},
    ]
}


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(i) is int for i in value)


def _to_prompts(value: Any) -> list[str | list[int]]:
    if isinstance(value, str) or _are_ids(value):
        return [value]
    if isinstance(value, list) and len(value) > MOST_SEQUENCES:
        raise ValueError(
            f"there are {len(value)} prompts, at most {MOST_SEQUENCES} go in one request; send it in parts"
        )
    if isinstance(value, list) and value and (all(isinstance(v, str) for v in value) or all(map(_are_ids, value))):
        return value
    raise ValueError("give a text, a list of texts, token ids (whole numbers), or a list of lists of token ids")


def _only(neutral: float) -> Callable[[float], float]:
    """A knob of other servers that this one does not have: it may stand at the value where it does nothing."""

    def check(value: float) -> float:
        if value != neutral:
            raise ValueError(f"{value:g} is not applied here; leave it out or give {neutral:g}")
        return value

    return check


def _to_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(Message):
    """What a stream tells beside the text."""

    include_usage: bool = Field(default=False, description="a last chunk with the usage")


class CompletionsRequest(Message):
    """Prompts to continue, or to score: `echo` with `logprobs`, or vLLM's `prompt_logprobs`. A null is the default."""

    model: str | None = Field(default=None, description="the teacher's name, see `/v1/models`")
    prompt: Annotated[list[str | list[int]], PlainValidator(_to_prompts), WithJsonSchema(_PROMPTS)] = Field(
        description="a text, texts, token ids, or lists of them"
    )
    max_tokens: int = Field(default=16, ge=0, description="longest continuation; 0 with echo or prompt_logprobs alone")
    n: int = Field(default=1, ge=1, le=256, description="continuations of each prompt")
    temperature: float = Field(default=1.0, ge=0, le=10, allow_inf_nan=False, description="0 is greedy")
    top_p: float = Field(default=1.0, gt=0, le=1, description="nucleus; 1 samples from the whole vocabulary")
    stop: Annotated[list[StopText], BeforeValidator(_to_list)] = Field(
        default=[], description="texts that end a continuation"
    )
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="the same seed gives the same draws")
    logprobs: int | None = Field(default=None, ge=0, description="so many of the most probable at each shown token")
    echo: bool = Field(default=False, description="show the prompt before the continuation, with its log-probs")
    prompt_logprobs: int | None = Field(default=None, ge=0, description="so many at each token of the prompt")
    return_token_ids: bool = Field(default=False, description="the ids of prompt and continuation too")
    return_tokens_as_token_ids: bool = Field(default=False, description="write a token as `token_id:N`, not as text")
    stream: bool = Field(default=False, description="server-sent events: a chunk for each whole text, then `[DONE]`")
    stream_options: StreamOptions = Field(default=StreamOptions(), description="of a stream")
    user: str | None = Field(default=None, description="taken and not used")
    suffix: Literal[""] | None = Field(default=None, description="not applied: null")
    best_of: int | None = Field(default=None, ge=1, description="not applied: the same as n")
    logit_bias: dict[str, float] = Field(default={}, max_length=0, description="not applied: empty")
    presence_penalty: Annotated[float, AfterValidator(_only(0))] = Field(default=0, description="not applied: 0")
    frequency_penalty: Annotated[float, AfterValidator(_only(0))] = Field(default=0, description="not applied: 0")
    repetition_penalty: Annotated[float, AfterValidator(_only(1))] = Field(default=1, description="not applied: 1")
    top_k: Literal[0, -1] = Field(default=0, description="not applied: 0 or -1")
    min_p: Annotated[float, AfterValidator(_only(0))] = Field(default=0, description="not applied: 0")

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        return {k: v for k, v in data.items() if v is not None or k == "prompt"} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            raise refused("max_tokens", "max_tokens is 0 and so is all that is asked for; add echo or write some")
        if self.best_of not in (None, self.n):
            raise refused(
                "best_of", f"best_of is {self.best_of}, n is {self.n}; texts are not chosen among, give n alone"
            )
        self._check_temperature()
        return self

    def _check_temperature(self) -> None:
        """Of `prompt_logprobs` a temperature speaks, so 0 is refused; with `logprobs` alone 0 says how to write."""
        greedy = self.temperature == 0 and self.prompt_logprobs is None
        plain = self.temperature == 1 and self.top_p == 1
        if self.scores and not (greedy or plain):
            field = "top_p" if self.temperature == 1 else "temperature"
            raise refused(
                field,
                f"{field} is {getattr(self, field):g}, but log-probabilities are given at temperature 1 and top_p 1 "
                "alone; ask so (with logprobs alone, temperature 0 too, which writes greedily), or without logprobs "
                "and prompt_logprobs",
            )

    @property
    def scores(self) -> bool:
        """Whether log-probabilities are asked for."""
        return self.logprobs is not None or self.prompt_logprobs is not None


class PromptLogprob(TypedDict):
    """One entry at a token of the prompt.

    `rank` is the place among the most probable. For a token outside the k that were asked it is k + 1, the best it can
    have.
    """

    logprob: Annotated[float, Field(description="natural logarithm")]
    rank: Annotated[int, Field(description="1 is the most probable")]
    decoded_token: Annotated[str, Field(description="the token as text")]


class TextLogprobs(Message):
    """Columns with an entry for each token of a text. The first token of an echoed prompt has null."""

    tokens: list[str] = Field(description="each as text, or `token_id:N`")
    token_logprobs: list[float | None] = Field(description="of each token given everything before it")
    top_logprobs: list[dict[str, float] | None] = Field(
        description="the most probable tokens there, and the token itself; of those with equal text the likeliest"
    )
    text_offset: list[int] = Field(description="where each token begins in `text`; a special token has no length there")


class CompletionsChoice(Message):
    """One text."""

    index: int = Field(description="continuation j of prompt i is i * n + j")
    text: str = Field(description="the continuation, behind the prompt with echo; without special tokens")
    finish_reason: Literal["stop", "length", "content_filter"] = Field(
        description="content_filter: a hosted model would not answer"
    )
    logprobs: TextLogprobs | None = Field(description="null where not asked for")
    prompt_logprobs: list[dict[str, PromptLogprob] | None] | None = Field(
        description="by token id, for each token of the prompt; null for the first"
    )
    prompt_token_ids: list[int] | None = Field(description="with return_token_ids")
    token_ids: list[int] | None = Field(description="with return_token_ids: those that were written")


class CompletionsUsage(Message):
    """What it cost in OpenAI's words."""

    prompt_tokens: int = Field(description="of every prompt, once")
    completion_tokens: int = Field(description="that were written")
    total_tokens: int = Field(description="both")


class CompletionsReply(Message):
    """Texts in the order of the prompts, the `n` of a prompt together."""

    id: str = Field(description="a new one each time")
    object: Literal["text_completion"] = Field(default="text_completion", description="what this is")
    created: int = Field(description="Unix time, seconds")
    model: str = Field(description="the teacher's name")
    choices: list[CompletionsChoice] = Field(description="empty in a stream's chunk with the usage")
    usage: CompletionsUsage | None = Field(description="null in a stream's chunk with a text")


class ModelCard(Message):
    """One model that is served."""

    id: str = Field(description="the teacher's name")
    object: Literal["model"] = Field(default="model", description="what this is")
    created: int = Field(description="Unix time of the process's start, seconds")
    owned_by: Literal["tutelage"] = Field(default="tutelage", description="who serves it")
    root: str = Field(description="hub id, or the name of the model's directory")
    max_model_len: int = Field(description="tokens of prompt and continuation together, at most")


class ModelList(Message):
    """What this teacher serves: itself."""

    object: Literal["list"] = Field(default="list", description="what this is")
    data: list[ModelCard] = Field(description="one")


class OpenaiError(Message):
    """Why a request was refused."""

    message: str = Field(description="one sentence for a person")
    type: str = Field(description="OpenAI's kind of error")
    param: str | None = Field(description="the field that is wrong")
    code: str = Field(description="the stable code, see the page of errors")


class OpenaiErrorReply(Message):
    """An error as OpenAI writes it."""

    error: OpenaiError = Field(description="what went wrong")
