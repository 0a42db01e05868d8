"""Every engine keeps the contract: scores are those of a plain forward, whatever they are asked together with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from numpy.typing import NDArray
from real_vllm import REAL, SERVERS, open_real, open_recorded, recording_of
from subjects import UPSTREAMS, VOCABULARY, Subject, by_hand, group, of_hf, of_replicas, of_upstream

from tutelage.engines import FakeOptions
from tutelage.engines.fakes import APPS, ToyServer
from tutelage.engines.fakes.replay import load_recording, replay_app
from tutelage_client.errors import InvalidInput
from tutelage_client.wire import GenerateRequest, ScoreGroup, Signal, TokenScores

TOLERANCE = 1e-4
RECORDED = {name.replace("real", "replayed"): name for name in SERVERS}


@pytest.fixture(scope="module")
def upstream_urls(serve: Any) -> Iterator[dict[str, str]]:
    """Every fake server on a port of this machine."""
    options = FakeOptions(vocabulary_size=VOCABULARY, max_length=256)
    apps = {name: APPS[kind](ToyServer(options, traps)) for name, (kind, traps) in UPSTREAMS.items()}
    replays = {recorded: replay_app(load_recording(recording_of(name))) for recorded, name in RECORDED.items()}
    with serve(apps | replays) as urls:
        yield urls


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real_subjects(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Subject]]:
    """Engines that take a minute to start: one of each for all tests, which must then share an event loop."""
    if not REAL:
        yield {}
        return
    async with open_real(tmp_path_factory.mktemp("real"), tokenizer) as subjects:
        yield subjects


@pytest.fixture(params=["fake", "gpt2", "llama", "qwen3", *UPSTREAMS, "replicated", *RECORDED, *REAL])
async def subject(request: pytest.FixtureRequest, real_subjects: dict[str, Subject]) -> AsyncIterator[Subject]:
    if request.param in real_subjects:
        yield real_subjects[request.param]
        return
    if request.param in UPSTREAMS:
        urls, tokenizer_dir = request.getfixturevalue("upstream_urls"), request.getfixturevalue("toy_tokenizer_dir")
        made = await of_upstream(request.param, urls[request.param], tokenizer_dir)
    elif request.param in RECORDED:
        url, folder = request.getfixturevalue("upstream_urls")[request.param], request.getfixturevalue("tmp_path")
        made = await open_recorded(url, folder, request.getfixturevalue("tokenizer"))
    elif request.param == "replicated":
        urls, tokenizer_dir = request.getfixturevalue("upstream_urls"), request.getfixturevalue("toy_tokenizer_dir")
        made = await of_replicas(urls["vllm"], tokenizer_dir)
    elif request.param == "fake":
        made = await by_hand()
    else:
        model_dirs, make_model = request.getfixturevalue("model_dirs"), request.getfixturevalue("make_model")
        made = await of_hf(model_dirs[request.param], make_model(request.param))
    yield made
    await made.engine.close()


def with_candidates(prompt: list[int], *completions: list[int], width: int = 3) -> ScoreGroup:
    """Every second row has one candidate less."""
    rows = [
        [[(7 * t + j) % 97 if j < width - i % 2 else -1 for j in range(width)] for i, t in enumerate(ids)]
        for ids in completions
    ]
    return group(prompt, list(completions), rows)


GROUPS = [
    with_candidates([5, 9, 11], [20, 21, 22, 23]),
    with_candidates([3, 4], [30], [31, 32, 33, 34, 35, 36, 37], [40, 41], width=5),
    with_candidates(list(range(10, 40)), [7]),
    with_candidates([8], list(range(1, 60)), width=2),
    with_candidates(list(range(40, 70)), [1, 2], [3, 4, 5], [6]),
    with_candidates([60, 61, 62], [80], [90]),
    with_candidates([2], [3]),
]


def check_block(block: TokenScores, prompt: list[int], completion: Any, subject: Subject) -> None:
    """One block against the log-probs of a plain forward of its own sequence."""
    ids = [*prompt, *completion.token_ids.tolist()]
    expected_RV = subject.logprobs(ids)[len(prompt) - 1 : -1]
    assert block.start == len(prompt)
    assert block.valid.all()
    rows = np.arange(block.rows)
    arrays = block.arrays()
    close(arrays["sampled_logprob"], expected_RV[rows, completion.token_ids])
    close(arrays["topk_logprob"], -np.sort(-expected_RV)[:, :4])
    close(arrays["topk_logprob"], expected_RV[rows[:, None], arrays["topk_ids"]])
    close(arrays["topk_rest_mass"], 1 - np.exp(-np.sort(-expected_RV)[:, :4]).sum(1))
    check_candidates(arrays, completion.candidate_ids, expected_RV, subject)
    if subject.local:
        close(arrays["entropy"], -(np.exp(expected_RV) * expected_RV).sum(1))
        close(log_softmax(logits_of(subject.engine.head(), arrays["hidden"])), expected_RV)


def check_candidates(
    arrays: dict[str, NDArray[Any]], ids: NDArray[Any], expected_RV: NDArray[np.float64], subject: Subject
) -> None:
    """Valid ones are exact; one that is not is padding, or outside the top k and below its bound."""
    valid = arrays["candidate_valid"]
    expected = expected_RV[np.arange(len(ids))[:, None], ids]
    close(arrays["candidate_logprob"][valid], expected[valid])
    assert np.isnan(arrays["candidate_logprob"][~valid]).all()
    assert not valid[ids < 0].any()
    uncovered = ~valid & (ids >= 0)
    if subject.engine.capabilities.covers_candidates:
        assert not uncovered.any()
        assert "candidate_upper_bound" not in arrays
    elif "candidate_upper_bound" in arrays:
        bound = arrays["candidate_upper_bound"]
        assert (np.isnan(bound) == ~uncovered.any(axis=1)).all()
        assert (expected <= bound[:, None] + TOLERANCE)[uncovered].all()
    else:
        assert not uncovered.any()


def close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(actual, expected, atol=TOLERANCE, rtol=0)


def logits_of(head: dict[str, NDArray[Any]], hidden: NDArray[Any]) -> NDArray[np.float64]:
    logits = hidden.astype(np.float64) @ head["weight"].T.astype(np.float64)
    logits = (logits + head.get("bias", 0)) * head.get("scale", 1)
    return head["softcap"] * np.tanh(logits / head["softcap"]) if "softcap" in head else logits


def log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("order", [[0], [1], [0, 1, 2, 3, 4, 5, 6], [6, 4, 3, 1], [4, 1, 5], [3, 2], [6, 6, 5]])
async def test_every_signal_is_that_of_a_plain_forward_in_any_company(subject: Subject, order: list[int]) -> None:
    groups = [GROUPS[i] for i in order]
    blocks, usage = await subject.engine.score(groups, subject.signals, 4)
    asked = [(g.prompt_ids.tolist(), c) for g in groups for c in g.completions]
    assert len(blocks) == len(asked)
    for block, (prompt, completion) in zip(blocks, asked, strict=True):
        check_block(block, prompt, completion, subject)
    assert usage.scored_tokens == sum(g.scored_tokens for g in groups)


async def test_a_group_scores_like_its_sequences_alone(subject: Subject) -> None:
    together, _ = await subject.engine.score([GROUPS[1]], subject.signals, 4)
    apart = [ScoreGroup(prompt_ids=GROUPS[1].prompt_ids, completions=(c,)) for c in GROUPS[1].completions]
    for one, alone in zip(together, apart, strict=True):
        (other,), _ = await subject.engine.score([alone], subject.signals, 4)
        for name in {"sampled_logprob", "topk_logprob", "entropy", "hidden"} & one.arrays().keys():
            close(one.arrays()[name], other.arrays()[name])


async def test_a_shared_prompt_is_paid_for_as_often_as_it_is_read(subject: Subject) -> None:
    prompt, completions = list(range(41, 71)), [[1, 2], [3, 4, 5], [6]]  # a prompt that no other test has
    _, shared = await subject.engine.score([group(prompt, completions)], frozenset({Signal.SAMPLED}), None)
    _, apart = await subject.engine.score([group(prompt, [c]) for c in completions], frozenset({Signal.SAMPLED}), None)
    assert (shared.forward_tokens, shared.cached_tokens) == subject.shared
    if subject.local:
        assert (apart.forward_tokens, apart.cached_tokens) == (3 * 30 + 1 + 2 + 0, 0)
    assert shared.scored_tokens == apart.scored_tokens == 6


@pytest.mark.parametrize("signal", sorted(Signal))
async def test_a_block_carries_what_was_asked_and_nothing_else(subject: Subject, signal: Signal) -> None:
    if signal not in subject.signals:
        assert not subject.local
        return
    asked = with_candidates([1, 2], [3, 4]) if signal == Signal.CANDIDATES else group([1, 2], [[3, 4]])
    (block,), _ = await subject.engine.score([asked], frozenset({signal}), 2 if signal == Signal.TOP_K else None)
    wanted = {
        Signal.SAMPLED: {"sampled_logprob"},
        Signal.TOP_K: {"topk_ids", "topk_logprob", "topk_rest_mass"},
        Signal.CANDIDATES: {"candidate_logprob", "candidate_valid"},
        Signal.ENTROPY: {"entropy"},
        Signal.HIDDEN: {"hidden"},
    }
    assert set(block.arrays()) - {"candidate_upper_bound"} == {"valid"} | wanted[signal]


async def test_the_largest_top_k_leaves_the_right_rest(subject: Subject) -> None:
    k = subject.engine.capabilities.max_top_k
    (block,), _ = await subject.engine.score([group([1, 2], [[3, 4]])], frozenset({Signal.TOP_K}), k)
    block.require(start=2, rows=2, top_k=k)
    close(np.exp(block.arrays()["topk_logprob"]).sum(1) + block.arrays()["topk_rest_mass"], np.ones(2))


async def test_a_sequence_of_the_full_length_is_scored_and_a_longer_one_refused(subject: Subject) -> None:
    limit = subject.engine.capabilities.max_length
    for completions in ([[2] * (limit - 1)], [[2] * (limit - 1), [3, 4]]):
        blocks, _ = await subject.engine.score([group([1], completions)], frozenset({Signal.SAMPLED}), None)
        assert blocks[0].rows == limit - 1
    with pytest.raises(InvalidInput, match=rf"{limit + 1} tokens, the model reads at most {limit}"):
        await subject.engine.score([group([1], [[2] * limit])], frozenset({Signal.SAMPLED}), None)


@pytest.mark.parametrize("place", ["prompt", "completion", "candidate"])
async def test_an_id_outside_the_vocabulary_is_refused(subject: Subject, place: str) -> None:
    v = subject.engine.capabilities.vocabulary_size
    assert v is not None
    asked = {
        "prompt": with_candidates([v], [3]),
        "completion": group([1], [[v]], [[[1]]]),
        "candidate": group([1], [[3]], [[[v]]]),
    }[place]
    with pytest.raises(InvalidInput, match=str(v)):
        await subject.engine.score([asked], frozenset({Signal.CANDIDATES}), None)


async def test_generated_text_carries_its_own_log_probs(subject: Subject) -> None:
    request = GenerateRequest(prompts=[[5, 6, 7], [8]], n=3, max_tokens=9, seed=4)
    generations, usage = await subject.engine.generate(request)
    assert [len(row) for row in generations] == [3, 3]
    for prompt, row in zip(([5, 6, 7], [8]), generations, strict=True):
        for one in row:
            assert one.token_ids
            expected_RV = subject.logprobs([*prompt, *one.token_ids])[len(prompt) - 1 : -1]
            assert one.logprobs is not None
            close(np.array(one.logprobs), expected_RV[np.arange(len(one.token_ids)), one.token_ids])
            ended = one.token_ids[-1] in subject.engine.capabilities.eos_ids
            assert one.finish_reason == ("stop" if ended else "length")
            assert ended or len(one.token_ids) == 9
    assert usage.generated_tokens == sum(len(one.token_ids or ()) for row in generations for one in row)
    spared = 0 if subject.engine.provenance.engine == "openai" else 8  # it says what it bills, and no more
    assert (usage.forward_tokens, usage.cached_tokens) == (4, spared)


async def test_the_seed_decides_what_is_written(subject: Subject) -> None:
    texts = [
        await subject.engine.generate(GenerateRequest(prompts=[[5, 6]], n=4, max_tokens=8, seed=seed))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


async def test_a_stop_string_is_cut_off_with_what_follows(subject: Subject) -> None:
    request = GenerateRequest(prompts=[[5, 6]], n=8, max_tokens=12, seed=3)
    (free,), _ = await subject.engine.generate(request)
    whole = max(free, key=lambda one: len(one.text))
    stop = whole.text[3:5]
    (cut,), _ = await subject.engine.generate(request.model_copy(update={"stop": [stop]}))
    for one in cut:
        assert stop not in one.text
        assert len(one.token_ids or ()) == len(one.logprobs or ())
    stopped = cut[free.index(whole)] if len(cut) == len(free) else cut[0]
    assert stopped.finish_reason == "stop"


async def test_too_many_tokens_to_write_are_refused_before_any_is_written(subject: Subject) -> None:
    limit = subject.engine.capabilities.max_length
    with pytest.raises(InvalidInput, match=str(limit)):
        await subject.engine.generate(GenerateRequest(prompts=[[5, 6]], max_tokens=limit))


async def test_text_and_messages_are_prompts_too(subject: Subject) -> None:
    request = GenerateRequest(prompts=["t1 t2", [{"role": "user", "content": "t1"}]], max_tokens=3, seed=1)
    generations, _ = await subject.engine.generate(request)
    assert [len(row) for row in generations] == [1, 1]


async def test_an_engine_says_who_speaks(subject: Subject) -> None:
    provenance = subject.engine.provenance
    assert provenance.teacher in ("toy", "tiny")
    assert provenance.temperature == 1.0
    assert not subject.engine.capabilities.applies_temperature
    assert len(provenance.tokenizer_fingerprint) == 64
    assert "/" not in provenance.model
