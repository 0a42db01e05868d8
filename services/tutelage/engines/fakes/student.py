"""A vLLM server in small with a real model behind it, as a sampler has one: adapters come and go, weights are reloaded.

Its log-probs are at temperature 1 whatever is drawn from, as vLLM's are by default.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from safetensors.torch import load_file
from torch import Tensor

from tutelage.engines.fakes.toy import Body, Json, error
from tutelage.engines.loading import load_model
from tutelage.engines.sampling import sample

StudentTrap = Literal[
    "reload_garbles",  # reload_weights answers 200 and leaves wrong weights, as on a processor
    "adapter_ignored",  # an adapter is taken, and the model below it answers
    "forgetful",  # the adapters are gone after the first text, as after a restart
]
NAME = "student"


class StudentServer:
    """The model in `folder`, and the adapters that were loaded by name. told: paths that were asked, in order"""

    def __init__(self, folder: Path, traps: Collection[StudentTrap] = ()) -> None:
        self.model = load_model(str(folder), None, "float32", torch.device("cpu"))
        self.traps = traps
        self.adapters: dict[str, Any] = {}
        self.told: list[str] = []
        self.busy = asyncio.Lock()
        self._folder = folder

    def adapt(self, name: str, path: str) -> None:
        from peft import PeftModel

        below = load_model(str(self._folder), None, "float32", torch.device("cpu"))
        self.adapters[name] = (
            below if "adapter_ignored" in self.traps else PeftModel.from_pretrained(below, path).eval()
        )

    def reload(self, path: str) -> None:
        weights: dict[str, Tensor] = {}
        for file in Path(path).glob("*.safetensors"):
            weights |= load_file(file)
        if "reload_garbles" in self.traps:
            weights = {name: weight.flip(0) for name, weight in weights.items()}
        self.model.load_state_dict(weights, strict=False)

    def named(self, name: str) -> Any:
        return self.model if name == NAME else self.adapters[name]

    def forget(self) -> None:
        if "forgetful" in self.traps:
            self.adapters.clear()

    @torch.inference_mode()
    def scores(self, model: Any, ids: list[int]) -> list[Json | None]:
        """As `prompt_logprobs` of 1 or less: each token, and the best one."""
        logprob_TV = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)
        rows: list[Json | None] = [None]
        for logprob_V, own in zip(logprob_TV, ids[1:], strict=False):
            best = int(logprob_V.argmax())
            rows.append({str(i): {"logprob": float(logprob_V[i]), "rank": 1} for i in (own, best)})
        return rows

    def written(self, model: Any, body: Json) -> Json:
        (one,) = sample(
            model,
            [body["prompt"]],
            max_new_tokens=body["max_tokens"],
            temperature=body["temperature"],
            eos_ids=frozenset(body.get("stop_token_ids") or ()),
            pad_id=0,
            generator=torch.Generator().manual_seed(body.get("seed") or 0),
        )
        logprobs = {"tokens": [f"t{i}" for i in one.token_ids], "token_logprobs": one.logprobs}
        return {
            "index": 0,
            "text": "",
            "finish_reason": one.finish_reason,
            "token_ids": one.token_ids if body.get("return_token_ids") else None,
            "logprobs": logprobs if body.get("logprobs") is not None else None,
        }


def student_app(server: StudentServer) -> FastAPI:
    """The routes of a server with `--enable-lora`, with runtime updates of adapters and in development mode."""
    app = FastAPI(title="vLLM in small, of a student")
    _take_weights(app, server)

    @app.get("/v1/models")
    async def models() -> Json:
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in (NAME, *server.adapters)]}

    @app.post("/v1/completions")
    async def completions(body: Body) -> Any:
        if body["model"] != NAME and body["model"] not in server.adapters:
            return error(404, f"The model `{body['model']}` does not exist.", "model")
        model = server.named(body["model"])
        async with server.busy:
            choice = await asyncio.to_thread(server.written, model, body)
            if body.get("prompt_logprobs") is not None:
                choice["prompt_logprobs"] = await asyncio.to_thread(server.scores, model, body["prompt"])
            else:
                server.forget()
        return {"id": "cmpl", "object": "text_completion", "model": body["model"], "choices": [choice]}

    return app


def _take_weights(app: FastAPI, server: StudentServer) -> None:
    @app.post("/v1/load_lora_adapter")
    async def load(body: Body) -> Any:
        server.told.append(f"load {body['lora_name']}")
        if body["lora_name"] in server.adapters:
            return error(400, f"The lora adapter '{body['lora_name']}' has already been loaded.")
        await asyncio.to_thread(server.adapt, body["lora_name"], body["lora_path"])
        return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: Body) -> Any:
        server.told.append(f"unload {body['lora_name']}")
        if server.adapters.pop(body["lora_name"], None) is None:
            return error(404, f"The lora adapter '{body['lora_name']}' cannot be found.")
        return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")

    @app.post("/collective_rpc")
    async def call(body: Body) -> Any:
        server.told.append(body["method"])
        await asyncio.to_thread(server.reload, body["kwargs"]["weights_path"])
        return JSONResponse({"results": [None]})

    @app.post("/reset_prefix_cache")
    async def reset() -> Any:
        server.told.append("reset_prefix_cache")
        return PlainTextResponse("")
