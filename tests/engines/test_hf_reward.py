"""A reward model's engine: its values are the model's own, whatever stands beside a row, through both doors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch
from single import put_one
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
)

from tutelage.engines import HfRewardOptions, open_engine
from tutelage.engines.base import RewardEngine
from tutelage.engines.hf_reward import HfRewardEngine
from tutelage.queue import Job
from tutelage.queue.memory import MemoryQueue
from tutelage.teacher.build import build_app
from tutelage.teacher.settings import Settings
from tutelage_client.errors import InvalidInput, ProblemResponse
from tutelage_client.teacher import TeacherClient
from tutelage_client.wire import (
    GenerateRequest,
    RewardItem,
    RewardModel,
    RewardRequest,
    Rubric,
    decode_reward_reply,
    encode_reward_request,
)

SIZES: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 96,
    "initializer_range": 0.25,
    "pad_token_id": 0,
}
FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": lambda **more: LlamaForSequenceClassification(LlamaConfig(**SIZES, **more)),
    "bert": lambda **more: BertForSequenceClassification(BertConfig(**SIZES, **more)),
}
TEXTS = ["", "Yes.", "No, and that is a longer answer.", "Yes!"]
ITEMS = [RewardItem(prompt="Is it?", completion=text) for text in TEXTS]


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Any) -> Callable[..., str]:
    def save(family: str = "llama", **config: Any) -> str:
        torch.manual_seed(3)
        FAMILIES[family](**config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


async def opened(**options: Any) -> HfRewardEngine:
    engine = await open_engine(HfRewardOptions(device="cpu", **options), "judge")
    assert isinstance(engine, HfRewardEngine)
    assert isinstance(engine, RewardEngine)
    return engine


@pytest.mark.parametrize("family", FAMILIES)
async def test_values_are_the_models_own_whatever_stands_beside_a_row(saved: Any, family: str, tokenizer: Any) -> None:
    model = saved(family, num_labels=1)
    engine = await opened(model=model)
    rows = [engine.row(item) for item in ITEMS]
    values, usage = await engine.reward(rows)
    plain = type(FAMILIES[family](num_labels=1)).from_pretrained(model).eval()
    chats = [f"<user>Is it?<assistant>{text}" for text in TEXTS]
    with torch.inference_mode():
        expected = [float(plain(**tokenizer(chat, return_tensors="pt")).logits[0, 0]) for chat in chats]
    assert values == pytest.approx(expected, abs=1e-5)
    assert len({round(value, 6) for value in values}) == len(values)
    assert usage.forward_tokens == sum(map(len, chats))
    assert (await engine.connect())["worst_padding_gap"] < 1e-4


async def test_a_label_names_one_of_several_outputs(saved: Any) -> None:
    model = saved(id2label={0: "bad", 1: "good"})
    bad, good = [await opened(model=model, label=label) for label in ("bad", "good")]
    row = bad.row(ITEMS[1])
    assert (await bad.reward([row]))[0] != (await good.reward([row]))[0]
    with pytest.raises(InvalidInput, match="the model has 2 outputs; name the one to use with label: bad, good"):
        await opened(model=model)
    with pytest.raises(InvalidInput, match="no label 'best'; it has bad, good"):
        await opened(model=model, label="best")


async def test_without_a_chat_template_or_a_head_it_does_not_open(
    saved: Any, tmp_path: Path, make_model: Any, tokenizer: Any
) -> None:
    saved(num_labels=1)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(InvalidInput, match="has no chat template"):
        await opened(model=str(tmp_path))
    writer = tmp_path / "writer"
    make_model("llama").save_pretrained(writer)
    tokenizer.save_pretrained(writer)
    with pytest.raises(InvalidInput, match=r"lack score\.weight"):
        await opened(model=str(writer))


async def test_it_declares_rewards_alone_and_refuses_the_rest(saved: Any) -> None:
    engine = await opened(model=saved(num_labels=1))
    assert engine.capabilities.rewards == {"reward_model"}
    assert (engine.capabilities.signals, engine.capabilities.generates) == (frozenset(), False)
    with pytest.raises(InvalidInput, match="no log-probs"):
        await engine.score([], frozenset(), None)
    with pytest.raises(InvalidInput, match="writes no text"):
        await engine.generate(GenerateRequest(prompts=["p"], max_tokens=1))
    with pytest.raises(InvalidInput, match="no head"):
        engine.head()


async def test_both_doors_give_equal_rewards_and_what_it_cannot_read_is_not_valid(saved: Any) -> None:
    given = {"engine": "hf_reward", "model": saved(num_labels=1), "device": "cpu", "name": "judge"}
    settings = Settings.model_validate(given)
    engine, queue = await open_engine(settings.engine_options(), "judge"), MemoryQueue()
    assert isinstance(engine, HfRewardEngine)
    request = RewardRequest(items=[*ITEMS, RewardItem(prompt="p", completion="x" * 200)], reward=RewardModel())
    app = build_app(settings, engine, queue)
    async with (
        app.router.lifespan_context(app),
        TeacherClient("http://127.0.0.1", transport=httpx2.ASGITransport(app)) as client,
    ):
        over_http = await client.reward(request)
        payload = encode_reward_request(request)
        await put_one(queue, Job(id="j", queue="judge", reply_to="r", run_id="run", tokens=5, payload=payload))
        answers, _ = await queue.answers("r", after="0", wait_s=30)
        with pytest.raises(ProblemResponse, match="does not give the reward 'rubric'") as refused:
            await client.reward(request.model_copy(update={"reward": Rubric(rubric="r")}))
    assert decode_reward_reply(answers[0].payload or b"") == over_http
    *good, long = over_http.rewards
    assert [reward.value for reward in good] == (await engine.reward([engine.row(item) for item in ITEMS]))[0]
    assert not long.valid
    assert "tokens, the model reads at most 96" in long.detail["reason"]
    assert over_http.usage.forward_tokens == sum(len(engine.row(item)) for item in ITEMS)
    assert refused.value.code == "capability_missing"
