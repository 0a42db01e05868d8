"""vLLM in this process as a teacher: its `AsyncLLM`, on a host with a GPU. Importing this module needs vLLM.

The same parameters as over HTTP (see `vllm_http`), less the JSON: ids and scores are arrays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
from vllm.engine.arg_utils import AsyncEngineArgs  # pyright: ignore[reportMissingImports]
from vllm.exceptions import VLLMClientError, VLLMServerError  # pyright: ignore[reportMissingImports]
from vllm.sampling_params import RequestOutputKind, SamplingParams  # pyright: ignore[reportMissingImports]
from vllm.v1.engine.async_llm import AsyncLLM  # pyright: ignore[reportMissingImports]
from vllm.v1.engine.exceptions import EngineDeadError  # pyright: ignore[reportMissingImports]
from vllm.version import __version__  # pyright: ignore[reportMissingImports]

from tutelage.engines.loading import weights_revision
from tutelage.engines.options import VllmOptions
from tutelage.engines.tokenizer import first_line
from tutelage.engines.upstream.asked import Answer, Asked, Ids, Logprobs, logprobs_of
from tutelage.engines.upstream.choices import read_choices
from tutelage.engines.upstream.dialect import Learned
from tutelage.engines.upstream.engine import UpstreamEngine
from tutelage.engines.upstream.failures import UpstreamAway, UpstreamFailed, UpstreamRefused
from tutelage.engines.upstream.local import read_local
from tutelage.engines.upstream.room import TokenRoom
from tutelage.engines.upstream.tab import Tab
from tutelage.engines.vllm_scores import UNCHANGED, TopK, score_by_ids, score_by_top_k, tokens_at_once
from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire import GenerateRequest, Generation

_CALLS_AT_ONCE = 16  # vLLM schedules what is in it by itself


def open_vllm(options: VllmOptions, name: str) -> UpstreamEngine:
    """The engine of a directory or hub id, speaking as teacher `name`. The model is loaded by `connect`.

    Raises:
        InvalidInput: there is no tokenizer, or vLLM does not know an argument.
    """
    local = read_local(options.model, options.revision)
    dialect = VllmInProcess(options, _arguments(options), local.vocabulary_size)
    return UpstreamEngine(options, name, local, dialect, _CALLS_AT_ONCE)


def _arguments(options: VllmOptions) -> AsyncEngineArgs:
    ours: dict[str, Any] = {
        "model": options.model,
        "revision": options.revision,
        "tokenizer_revision": options.revision,
        "dtype": options.dtype,
        "max_model_len": options.max_length and options.max_length + 1,  # it writes a token after what it scores
        "max_logprobs": options.max_top_k,
        "logprobs_mode": "raw_logprobs",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "disable_log_stats": True,
    }
    if taken := sorted(ours.keys() & options.vllm_args):
        raise InvalidInput(f"vllm_args cannot set {taken[0]}, which has a flag of its own or one value", "vllm_args")
    try:
        return AsyncEngineArgs(**ours, **options.vllm_args)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"vLLM refuses its arguments: {first_line(error)}", "vllm_args") from error


class VllmInProcess:
    """The dialect of an engine that this process started."""

    def __init__(self, options: VllmOptions, arguments: AsyncEngineArgs, vocabulary_size: int) -> None:
        self._options = options
        self._arguments = arguments
        self._vocabulary_size = vocabulary_size
        self._room = TokenRoom(options.tokens_at_once or tokens_at_once(vocabulary_size))
        self._llm: Any = None
        self._max_logprobs = 1
        self._per_row = False

    async def learn(self) -> Learned:
        """Load the model, if it is not; again if its engine died."""
        llm = await self._running()
        config = llm.model_config
        self._max_logprobs = min(self._options.max_top_k, self._vocabulary_size)
        self._per_row = bool(llm.vllm_config.use_v2_model_runner)
        revision = self._options.revision
        return Learned(
            model=self._options.model,
            version=__version__,
            max_top_k=self._max_logprobs,
            max_length=config.max_model_len - 1,
            covers_candidates=self._per_row,
            revision=weights_revision(self._options.model, revision, config.hf_config),
            dtype=str(config.dtype).removeprefix("torch."),
            facts={"candidates": "each has its score" if self._per_row else "from the top k only: the V1 model runner"},
        )

    async def score(self, asked: Asked, _: Tab) -> Answer:
        if self._per_row:
            return await score_by_ids(asked, self._max_logprobs, self._of_ids)
        return await score_by_top_k(asked, self._max_logprobs, self._top_k)

    async def write(
        self, prompt_ids: Sequence[int], request: GenerateRequest, seed: int | None, _: Tab
    ) -> list[Generation]:
        output = await self._ask(
            prompt_ids,
            n=request.n,
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            top_p=request.top_p,
            stop=request.stop,
            seed=seed,
            logprobs=0,
        )
        return read_choices([_choice(one) for one in output.outputs], request)

    async def tokenize(self, text: str) -> list[int] | None:
        return self._llm.get_tokenizer().encode(text, add_special_tokens=False)

    async def spell(self, token_ids: Sequence[int]) -> list[str | None]:
        return [self._llm.get_tokenizer().decode([i]) for i in token_ids]

    async def close(self) -> None:
        if self._llm is not None:
            self._llm.shutdown()
            self._llm = None

    async def _running(self) -> AsyncLLM:
        """The engine, started in a thread where there is none, as it takes minutes.

        vLLM begins its tasks with the first question then, on the loop of that. A start that is given up is waited for
        all the same, so that `close` ends what it began.
        """
        if self._llm is not None and not self._llm.errored:
            return self._llm
        await self.close()
        starting = asyncio.create_task(asyncio.to_thread(_started, self._arguments))
        try:
            self._llm = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._llm = await starting
            raise
        return self._llm

    async def _top_k(self, asked: Asked, k: int) -> TopK:
        return _read_top_k(await self._scored(asked, prompt_logprobs=k), asked, k)

    async def _of_ids(self, asked: Asked, columns: Ids, top_k: int | None) -> tuple[Logprobs, TopK | None]:
        output = await self._scored(
            asked,
            prompt_logprob_start=asked.start - 1,
            prompt_logprob_token_ids=columns.astype(np.int32),
            prompt_logprobs=top_k,
        )
        scores = output.prompt_token_id_logprobs
        if scores is None or scores.shape != columns.shape:
            raise BadScores("vLLM gave no scores for the ids, or not of each")
        given = logprobs_of(np.where(columns >= 0, scores, -np.inf))
        return given, None if top_k is None else _read_top_k(output, asked, top_k)

    async def _scored(self, asked: Asked, **parameters: Any) -> Any:
        async with self._room.taken(len(asked.token_ids)):
            return await self._ask(
                asked.token_ids,
                max_tokens=1,
                temperature=asked.temperature,
                detokenize=False,
                flat_logprobs=True,
                **parameters,
            )

    async def _ask(self, token_ids: Sequence[int], **parameters: Any) -> Any:
        """The finished output; a request that is cancelled is dropped by the engine too."""
        if self._llm is None:
            raise UpstreamAway("vLLM's engine is not started")
        last: Any = None
        try:
            asked = SamplingParams(**UNCHANGED, **parameters, output_kind=RequestOutputKind.FINAL_ONLY)
            async for output in self._llm.generate({"prompt_token_ids": list(token_ids)}, asked, uuid4().hex):
                last = output
        except EngineDeadError as error:
            raise UpstreamAway("vLLM's engine died; it is started again") from error
        except VLLMClientError as error:
            raise UpstreamRefused(400, f"vLLM refuses: {first_line(error)}") from error
        except VLLMServerError as error:
            raise UpstreamFailed(f"vLLM failed: {first_line(error)}") from error
        return last


def _started(arguments: AsyncEngineArgs) -> AsyncLLM:
    try:
        return AsyncLLM.from_engine_args(arguments)
    except (RuntimeError, ValueError, OSError) as error:
        raise UpstreamFailed(f"vLLM cannot start: {first_line(error)}; its own log has more") from error


def _read_top_k(output: Any, asked: Asked, k: int) -> TopK:
    """A row has the token itself first and the k best after it; it may be one of them too."""
    flat = output.prompt_logprobs
    if flat is None or len(flat) != len(asked.token_ids):
        raise BadScores(
            f"prompt_logprobs: {0 if flat is None else len(flat)} rows for {len(asked.token_ids)} tokens", "length"
        )
    first = flat.start_indices[asked.start]
    shape = (asked.rows, k + 1)
    if len(flat.token_ids) - first != asked.rows * (k + 1):
        raise BadScores(f"prompt_logprobs has {len(flat.token_ids) - first} entries, asked were {shape}", "length")
    ids = np.array(flat.token_ids[first:], dtype=np.int64).reshape(shape)
    logprobs = logprobs_of(flat.logprobs[first:]).reshape(shape)
    if (ids[:, 0] != asked.scored_ids).any():
        raise BadScores("prompt_logprobs is of other tokens than were asked about", "mismatch")
    return ids[:, 1:], logprobs[:, 1:], logprobs[:, 0]


def _choice(one: Any) -> dict[str, Any]:
    """A continuation as the HTTP API would give it."""
    ids = list(one.token_ids)
    drawn = [row[token].logprob for row, token in zip(one.logprobs, ids, strict=True)]
    shared = {"index": one.index, "text": one.text, "token_ids": ids, "finish_reason": one.finish_reason}
    return shared | {"logprobs": {"token_logprobs": drawn}}
