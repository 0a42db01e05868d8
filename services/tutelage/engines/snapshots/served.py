"""A vLLM server that is put where the newest snapshot is: adapters are loaded beside its model, whole weights into it.

The server is this sampler's alone. Whatever it says of an update, the known sequence is asked of it before it writes:
on a processor, for one, it answers `reload_weights` with 200 and holds wrong weights from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tutelage.engines.snapshots.current import Ended
from tutelage.engines.snapshots.files import MODEL, Snapshot, check_known, read
from tutelage.engines.upstream.asked import Asked
from tutelage.engines.upstream.discovery import served_model
from tutelage.engines.upstream.failures import UpstreamFailed, UpstreamRefused
from tutelage.engines.upstream.http import UpstreamHttp
from tutelage.engines.upstream.prompt_logprobs import read_prompt_logprobs
from tutelage.engines.vllm_scores import UNCHANGED
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import SampledText, SampleRequest, Signal, SnapshotRef

CLOSE_S = 5.0  # for a server that may be gone


class ServedStudent:
    """The model behind a server's HTTP. owner: in the names of its adapters; most_off, patience_s: see `files`"""

    def __init__(self, http: UpstreamHttp, owner: str, most_off: float, patience_s: float) -> None:
        self._http = http
        self._owner = owner
        self._most_off = most_off
        self._patience_s = patience_s
        self._ref: SnapshotRef | None = None
        self._snapshot: Snapshot | None = None
        self._adapter: str | None = None
        self._model = ""

    async def load(self, ref: SnapshotRef) -> None:
        if ref == self._ref:
            return
        snapshot = await asyncio.to_thread(read, ref, self._patience_s)
        self._ref = None
        folder = str((Path(ref.path) / MODEL).resolve())
        if snapshot.base is None:
            await self._reload(folder)
        else:
            await self._adapt(folder, f"{self._owner}-{ref.policy_version}-{ref.sha256[:12]}")
        self._snapshot = snapshot
        check_known(snapshot, await self._logprobs(snapshot.known_ids), self._most_off, f"vLLM at {self._http.url}")
        self._ref = ref

    async def write(self, requests: Sequence[SampleRequest]) -> AsyncGenerator[Ended]:
        texts = [asyncio.create_task(self._text(i, request)) for i, request in enumerate(requests)]
        try:
            for text in asyncio.as_completed(texts):
                yield [await text]
        except UpstreamFailed:
            self._ref = None  # it may have been restarted, without what it was told
            raise
        finally:
            for text in texts:
                text.cancel()
            await asyncio.gather(*texts, return_exceptions=True)

    async def close(self) -> None:
        with suppress(UpstreamFailed, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self._drop_adapter()
        await self._http.close()

    async def _adapt(self, folder: str, name: str) -> None:
        """Under a name that was never used, so that nothing that was cached under another one counts for it."""
        await self._drop_adapter()
        await self._http.tell("/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        self._model = self._adapter = name

    async def _drop_adapter(self) -> None:
        """What the server lost, with a restart, need not be taken from it."""
        if self._adapter is None:
            return
        name, self._adapter, self._ref = self._adapter, None, None
        try:
            await self._http.tell("/v1/unload_lora_adapter", {"lora_name": name})
        except UpstreamRefused as error:
            if error.status != 404:
                raise

    async def _reload(self, folder: str) -> None:
        cards = (await self._http.get("/v1/models")).get("data") or []
        card = served_model([card for card in cards if not card.get("parent")], None)
        self._model = str(card["id"])
        await self._http.tell("/collective_rpc", {"method": "reload_weights", "kwargs": {"weights_path": folder}})
        await self._http.tell("/reset_prefix_cache", {})

    async def _logprobs(self, ids: list[int]) -> Any:
        """Of each token but the first."""
        asked = Asked(ids, 1, frozenset({Signal.SAMPLED}))
        body = {"model": self._model, "prompt": ids, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 1}
        choices = (await self._http.post("/v1/completions", UNCHANGED | body)).get("choices") or [{}]
        return read_prompt_logprobs(choices[0].get("prompt_logprobs"), asked, 1)[2]

    async def _text(self, index: int, request: SampleRequest) -> tuple[int, SampledText]:
        assert self._snapshot is not None
        if (request.temperature, request.top_p) != (1.0, 1.0):
            sentence = "vLLM tells log-probs at temperature 1 and of all tokens, and mu is of what was drawn from"
            raise InvalidInput(f"{sentence}; set rollout.temperature and top_p to 1, or use --engine hf")
        body = UNCHANGED | {
            "model": self._model,
            "prompt": request.prompt_ids.tolist(),
            "max_tokens": request.max_new_tokens,
            "temperature": 1.0,
            "top_p": 1.0,
            "seed": (request.seed + request.place) % 2**63,
            "ignore_eos": True,  # what ends a text is the student's to say
            "stop_token_ids": self._snapshot.eos_ids,
            "logprobs": 1,
            "return_token_ids": True,
        }
        (choice,) = (await self._http.post("/v1/completions", body)).get("choices") or ({},)
        told = {"token_ids": choice.get("token_ids"), "logprobs": (choice.get("logprobs") or {}).get("token_logprobs")}
        told |= {"policy_version": self._snapshot.policy_version, "finish_reason": choice.get("finish_reason")}
        try:
            return index, SampledText.model_validate(told)
        except ValueError as error:
            raise UpstreamFailed("vLLM answered with something that is no text with its log-probs") from error
