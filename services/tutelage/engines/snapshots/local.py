"""A transformers model in this process that is put where the newest snapshot is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from tutelage.engines.loading import load_model, pick_device
from tutelage.engines.sampling import Sampled, sample
from tutelage.engines.snapshots.current import Ended
from tutelage.engines.snapshots.files import MODEL, Snapshot, SnapshotRefused, check_known, read
from tutelage.engines.streaming import streamed
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import SampledText, SampleRequest, SnapshotRef

ADAPTERS = "adapter_model.safetensors"
HOW_ADAPTED = f"{MODEL}/adapter_config.json"


class LocalStudent:
    """Whole weights are loaded anew; of adapters the model below them stays. model: what is loaded

    most_off: see `check_known`; patience_s: see `read`
    """

    def __init__(
        self, device: Literal["auto", "cpu", "cuda"] = "auto", most_off: float = 0.05, patience_s: float = 0.0
    ) -> None:
        self._device = pick_device(device)
        self._most_off = most_off
        self._patience_s = patience_s
        self.model: Any = None
        self._below: tuple[Any, ...] | None = None  # what tells the model below adapters, and how they sit on it
        self._ref: SnapshotRef | None = None
        self._snapshot: Snapshot | None = None

    async def load(self, ref: SnapshotRef) -> None:
        if ref != self._ref:
            await asyncio.to_thread(self._load, ref)

    async def write(self, requests: Sequence[SampleRequest]) -> AsyncGenerator[Ended]:
        async for ended in streamed(lambda: self._written(requests)):
            yield ended

    async def close(self) -> None:
        self.model = self._ref = None

    def _load(self, ref: SnapshotRef) -> None:
        snapshot = read(ref, self._patience_s)
        self._ref = None
        folder = Path(ref.path) / MODEL
        try:
            self._take_up(folder, snapshot)
        except InvalidInput as error:
            raise SnapshotRefused(
                f"the weights of policy version {snapshot.policy_version}: {error.message}"
            ) from error
        self._snapshot = snapshot
        below, self._below = self._below, None
        check_known(snapshot, self.logprobs(snapshot.known_ids), self._most_off, "the model in this process")
        self._ref, self._below = ref, below

    def _take_up(self, folder: Path, snapshot: Snapshot) -> None:
        base = snapshot.base
        below = None if base is None else (base, snapshot.files[HOW_ADAPTED])
        if base is None:
            self.model = None  # two do not fit everywhere
            self.model = load_model(str(folder), None, "float32", self._device)
        elif below != self._below:
            from peft import PeftModel  # here, because it costs every start two seconds

            self.model = None
            loaded = load_model(base.model, base.revision, "float32", self._device)
            self.model = PeftModel.from_pretrained(loaded, str(folder)).eval()
        else:
            from peft import set_peft_model_state_dict

            set_peft_model_state_dict(self.model, load_file(folder / ADAPTERS, device=str(self._device)))
        self._below = below

    @torch.inference_mode()
    def logprobs(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """log p of each token but the first, at temperature 1."""
        ids_1T = torch.tensor([ids], device=self._device)
        with self._precision():
            logits_TV = self.model(input_ids=ids_1T, use_cache=False).logits[0].float()
        return logits_TV[:-1].log_softmax(-1).gather(-1, ids_1T[0, 1:, None])[:, 0].cpu().numpy()

    def _written(self, requests: Sequence[SampleRequest]) -> Iterator[tuple[int, SampledText]]:
        """Texts of one step that are sampled alike run as one batch."""
        assert self._snapshot is not None
        order = sorted(range(len(requests)), key=lambda i: _how(requests[i]))
        for _, alike in groupby(order, key=lambda i: _how(requests[i])):
            of_place = {requests[i].place: i for i in alike}
            for sampled in self._sampled({place: requests[i] for place, i in of_place.items()}):
                told = {"token_ids": sampled.token_ids, "logprobs": sampled.logprobs}
                told |= {"policy_version": self._snapshot.policy_version, "finish_reason": sampled.finish_reason}
                yield of_place[sampled.index], SampledText.model_validate(told)

    def _sampled(self, by_place: dict[int, SampleRequest]) -> Iterator[Sampled]:
        assert self._snapshot is not None
        first = next(iter(by_place.values()))
        prompts = [by_place[place].prompt_ids.tolist() if place in by_place else [] for place in range(first.places)]
        rows = sample(
            self.model,
            prompts,
            max_new_tokens=first.max_new_tokens,
            temperature=first.temperature,
            top_p=first.top_p,
            eos_ids=frozenset(self._snapshot.eos_ids),
            pad_id=self._snapshot.pad_id,
            generator=torch.Generator().manual_seed(first.seed),
            places=by_place.keys(),
        )
        with self._precision():
            yield from rows

    def _precision(self) -> AbstractContextManager[Any]:
        """As the student itself writes."""
        if self._snapshot is None or self._snapshot.dtype == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=torch.bfloat16)


def _how(request: SampleRequest) -> tuple[float, ...]:
    """Of texts that one batch may hold."""
    drawn = (request.max_new_tokens, request.temperature, request.top_p)
    return (request.seed, request.places, *drawn)
