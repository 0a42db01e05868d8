"""The transformers engine: heads of several families, windows, precision, provenance, and what it refuses to load."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
)

from tutelage.engines import HfOptions, open_engine
from tutelage.engines.hf import HfEngine
from tutelage.engines.loading import pick_device
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import (
    Completion,
    GenerateRequest,
    Provenance,
    ScoreGroup,
    ScoreReply,
    Signal,
    decode_reply,
    encode_reply,
)

SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "initializer_range": 0.25,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
HEADS: dict[str, Callable[[], Any]] = {
    "softcap": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0, sliding_window=5)
    ),
    "scale": lambda: CohereForCausalLM(CohereConfig(**SIZES, logit_scale=0.25)),
    "divisor": lambda: GraniteForCausalLM(GraniteConfig(**SIZES, logits_scaling=3.0)),
    "bias": lambda: PhiForCausalLM(PhiConfig(**SIZES)),
    "window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4)),
}
GROUPS = [
    ScoreGroup.model_validate({"prompt_ids": p, "completions": [{"token_ids": c} for c in completions]})
    for p, completions in (
        (list(range(10, 22)), [[30, 31, 32, 33, 34, 35], [36], [37, 38]]),
        ([50, 51, 52], [[53, 54], [55, 56, 57, 58, 59, 60, 61, 62]]),
        (list(range(70, 80)), [[81, 82, 83]]),
    )
]


def engine_of(model: PreTrainedModel, tokenizer: Any) -> HfEngine:
    provenance = Provenance(
        teacher="t",
        model="m",
        model_revision="r",
        tokenizer_fingerprint="f",
        engine="hf",
        engine_version="1",
        dtype="float32",
    )
    return HfEngine(model.eval(), tokenizer, provenance, logit_tile_bytes=4 * 4 * 259)


@torch.no_grad()
def expected(model: PreTrainedModel) -> list[torch.Tensor]:
    """Sampled log-probs of every completion, each from a plain forward of its own."""
    out = []
    for group in GROUPS:
        for completion in group.completions:
            ids = torch.tensor([[*group.prompt_ids.tolist(), *completion.token_ids.tolist()]])
            logprob_TV = model(ids).logits[0, :-1].float().log_softmax(-1)
            out.append(logprob_TV.gather(-1, ids[0, 1:, None])[len(group.prompt_ids) - 1 :, 0])
    return out


@pytest.mark.parametrize("kind", sorted(HEADS))
async def test_logits_can_be_rebuilt_from_hidden_states_whatever_follows_the_head(kind: str, tokenizer: Any) -> None:
    torch.manual_seed(3)
    model = HEADS[kind]()
    if kind == "bias":
        torch.nn.init.normal_(model.lm_head.bias)
    engine = engine_of(model, tokenizer)
    head = {name: torch.from_numpy(array) for name, array in engine.head().items()}
    assert set(head) == {"weight"} | {"softcap": {"softcap"}, "bias": {"bias"}, "window": set()}.get(kind, {"scale"})
    blocks, usage = await engine.score(GROUPS, frozenset({Signal.SAMPLED, Signal.HIDDEN}), None)
    assert usage.cached_tokens == 2 * 12 + 3
    asked = [completion for group in GROUPS for completion in group.completions]
    for block, completion, sampled in zip(blocks, asked, expected(model), strict=True):
        torch.testing.assert_close(torch.from_numpy(block.arrays()["sampled_logprob"]), sampled, atol=1e-4, rtol=0)
        logits = torch.from_numpy(block.arrays()["hidden"]) @ head["weight"].T + head.get("bias", torch.zeros(1))
        logits = logits * head.get("scale", torch.ones(1))
        if "softcap" in head:
            logits = head["softcap"] * torch.tanh(logits / head["softcap"])
        rebuilt = logits.log_softmax(-1).gather(-1, torch.from_numpy(completion.token_ids).long()[:, None])[:, 0]
        torch.testing.assert_close(rebuilt, sampled, atol=1e-4, rtol=0)


async def test_a_head_that_cannot_be_proven_is_not_offered_and_scores_stay_the_models_own(
    make_model: Callable[[str], Any], tokenizer: Any
) -> None:
    model = make_model("llama")
    model.get_output_embeddings().register_forward_hook(lambda module, args, output: output.sin() * 4)
    engine = engine_of(model, tokenizer)
    assert engine.capabilities.signals == frozenset(Signal) - {Signal.HIDDEN}
    with pytest.raises(InvalidInput, match="cannot be rebuilt"):
        engine.head()
    blocks, usage = await engine.score(GROUPS, frozenset({Signal.SAMPLED}), None)
    for block, sampled in zip(blocks, expected(model), strict=True):
        torch.testing.assert_close(torch.from_numpy(block.arrays()["sampled_logprob"]), sampled, atol=1e-4, rtol=0)
    assert usage.cached_tokens == 0
    assert usage.forward_tokens == sum(len(g.prompt_ids) + len(c.token_ids) - 1 for g in GROUPS for c in g.completions)


async def test_the_head_rests_where_hidden_states_alone_are_asked_for(
    make_model: Callable[[str], Any], tokenizer: Any
) -> None:
    model = make_model("llama")
    engine = engine_of(model, tokenizer)
    both, _ = await engine.score(GROUPS, frozenset({Signal.HIDDEN, Signal.SAMPLED}), None)
    torch.nn.init.constant_(model.get_output_embeddings().weight, torch.nan)
    alone, _ = await engine.score(GROUPS, frozenset({Signal.HIDDEN}), None)
    for one, other in zip(both, alone, strict=True):
        np.testing.assert_array_equal(one.arrays()["hidden"], other.arrays()["hidden"])


async def test_bfloat16_is_close_and_says_so(
    make_model: Callable[[str], PreTrainedModel], model_dirs: dict[str, Path]
) -> None:
    engine = await open_engine(HfOptions(model=str(model_dirs["llama"]), dtype="bfloat16", device="cpu"), "t")
    assert engine.provenance.dtype == "bfloat16"
    assert Signal.HIDDEN in engine.capabilities.signals
    assert engine.head()["weight"].dtype == np.float32
    blocks, _ = await engine.score(GROUPS, frozenset({Signal.SAMPLED}), None)
    for block, sampled in zip(blocks, expected(make_model("llama")), strict=True):
        torch.testing.assert_close(torch.from_numpy(block.arrays()["sampled_logprob"]), sampled, atol=0.25, rtol=0)


async def test_hidden_states_of_bfloat16_lose_nothing_in_it_and_take_two_bytes_a_number(
    model_dirs: dict[str, Path],
) -> None:
    engine = await open_engine(HfOptions(model=str(model_dirs["llama"]), dtype="bfloat16", device="cpu"), "t")
    assert engine.capabilities.hidden_dtype == "bfloat16"
    prompt, ids = np.arange(3, 7, dtype=np.int32), np.arange(1, 89, dtype=np.int32)
    groups = [ScoreGroup(prompt_ids=prompt, completions=(Completion(token_ids=ids),))] * 64
    blocks, usage = await engine.score(groups, frozenset({Signal.HIDDEN}), None)
    reply = ScoreReply(scores=tuple(blocks), provenance=engine.provenance, usage=usage)
    narrowed, full = encode_reply(reply, "bfloat16"), encode_reply(reply)
    for sent, got in zip(blocks, decode_reply(narrowed).scores, strict=True):
        np.testing.assert_array_equal(got.arrays()["hidden"], sent.arrays()["hidden"])
    numbers = usage.scored_tokens * 32
    assert len(full) - len(narrowed) == 2 * numbers
    assert len(narrowed) <= 2.05 * numbers


async def test_provenance_names_the_model_without_its_path_and_pins_its_weights(model_dirs: dict[str, Path]) -> None:
    folder = model_dirs["gpt2"]
    engine = await open_engine(HfOptions(model=str(folder), device="cpu"), "walker")
    weights = (folder / "model.safetensors").read_bytes()
    assert engine.provenance.model_dump(exclude={"tokenizer_fingerprint"}) == {
        "teacher": "walker",
        "model": "gpt2",
        "model_revision": hashlib.sha256(weights).hexdigest()[:16],
        "engine": "hf",
        "engine_version": transformers.__version__,
        "dtype": "float32",
        "temperature": 1.0,
    }
    assert engine.capabilities.model_dump(exclude={"signals"}) == {
        "max_top_k": 259,
        "max_length": 96,
        "vocabulary_size": 259,
        "applies_temperature": False,
        "exact": True,
        "covers_candidates": True,
        "generates": True,
        "greedy": True,
        "writes_by_seed": True,
        "rewards": frozenset(),
        "eos_ids": (2,),
        "hidden_dtype": "float32",
    }


async def test_messages_and_text_reach_the_model_as_its_tokenizer_writes_them(model_dirs: dict[str, Path]) -> None:
    engine = await open_engine(HfOptions(model=str(model_dirs["qwen3"]), device="cpu"), "t")
    spelled = [3 + i for i in range(3)]
    prompts: list[Any] = ["<u>ab<a>", [{"role": "u", "content": "ab"}], spelled]
    generations, _ = await engine.generate(GenerateRequest(prompts=prompts, max_tokens=6, temperature=0))
    written = [generation[0].token_ids for generation in generations]
    assert written[0] == written[1] != written[2]


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("token*"):
        path.unlink()


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def without_a_layer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3, "layer_types": None}))


def of_another_width(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))


def no_language_model(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled, "no safetensors weights"),
        (without_tokenizer, "no tokenizer"),
        (cut_short, "cannot be loaded"),
        (without_a_layer, "lack"),
        (of_another_width, "cannot be loaded"),
        (no_language_model, "cannot be loaded"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (shutil.rmtree, "not a directory"),
    ],
)
async def test_a_model_that_cannot_be_used_is_refused_in_one_sentence(
    spoil: Callable[[Path], None], said: str, model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(model_dirs["llama"], tmp_path / "model")
    spoil(folder)
    with pytest.raises(InvalidInput, match=said) as refused:
        await open_engine(HfOptions(model=str(folder), device="cpu"), "t")
    assert "\n" not in refused.value.message


def test_a_gpu_is_used_only_where_there_is_one() -> None:
    assert pick_device("cpu").type == "cpu"
    if torch.cuda.is_available():
        assert pick_device("auto").type == pick_device("cuda").type == "cuda"
    else:
        assert pick_device("auto").type == "cpu"
        with pytest.raises(InvalidInput, match="no GPU"):
            pick_device("cuda")
