"""Model weights from a directory or the hub: safetensors only, and no code that comes with them is run."""

from __future__ import annotations

import hashlib
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import torch
import transformers
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from tutelage.core import kernels
from tutelage.engines.options import HfOptions, HfRewardOptions
from tutelage.engines.tokenizer import first_line, tokenizer_fingerprint
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Provenance

Dtype = Literal["float32", "bfloat16", "auto"]
# While the library loads it puts functions of its own class out of place: of two loads at once one leaves them so, and
# no tied head is found again in this process.
_ONE_AT_A_TIME = Lock()


def load_model(
    model: str, revision: str | None, dtype: Dtype, device: torch.device, kind: Any = AutoModelForCausalLM
) -> Any:
    """A model in eval mode on `device`; `dtype` auto is what the weights were saved in.

    kind: the automatic class of the library that it is loaded as

    Raises:
        InvalidInput: not there, not safetensors, not whole, or not of this kind.
    """
    local = _check_directory(model)
    kernels.settle()
    try:
        with _ONE_AT_A_TIME:
            loaded: Any = kind.from_pretrained(
                model,
                revision=revision or "main",
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=local,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(f"the model {model} cannot be loaded: {first_line(error)}", "model") from error
    network, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise InvalidInput(
            f"the weights of {model} lack {missing[0]} and {len(missing) - 1} more; save them whole", "model"
        )
    return network.to(device).eval()


def pick_device(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device asked for; auto takes a GPU where there is one.

    Raises:
        InvalidInput: a GPU was asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise InvalidInput("device is cuda, but torch sees no GPU here; give it one, or use cpu or auto", "device")
    return torch.device(device)


def provenance_of(options: HfOptions | HfRewardOptions, name: str, model: Any, tokenizer: Any) -> Provenance:
    """Of a model that was loaded as `options` say, speaking as teacher `name`."""
    return Provenance(
        teacher=name,
        model=Path(options.model).resolve().name if Path(options.model).is_dir() else options.model,
        model_revision=weights_revision(options.model, options.revision, model.config),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        engine=options.kind,
        engine_version=transformers.__version__,
        dtype=str(model.dtype).removeprefix("torch."),
    )


def weights_revision(model: str, revision: str | None, config: Any) -> str:
    """What pins the weights: of a directory 16 hex digits of its safetensors' sha256, of a hub id the commit."""
    if not Path(model).is_dir():
        return revision or getattr(config, "_commit_hash", None) or "main"
    digest = hashlib.sha256()
    for path in sorted(Path(model).glob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def _check_directory(model: str) -> bool:
    """True for a directory with weights, False for what can only be a hub id."""
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InvalidInput(f"{model} has no config.json; name a directory written by save_pretrained", "model")
        if not any(path.glob("*.safetensors")):
            message = f"{model} has no safetensors weights, and pickled ones are not loaded; convert them first"
            raise InvalidInput(message, "model")
        return True
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1:
        raise InvalidInput(f"{model} is not a directory; name one written by save_pretrained, or a hub id", "model")
    return False
