"""What servers are known to do wrong: the engine gives right scores all the same, or says why it gives none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.engines import ChatOptions, FakeOptions, UpstreamOptions, open_engine
from tutelage.engines.fakes import APPS, ToyServer, Trap, listening
from tutelage.engines.openai import open_client
from tutelage.engines.probe import Directly, probe
from tutelage.engines.sglang import MAX_UNION_CELLS
from tutelage.engines.upstream.surface import EXTRAS, Surface, learn_surface
from tutelage.engines.upstream.tab import Tab
from tutelage_client.errors import BadScores, InvalidInput, TutelageError
from tutelage_client.wire import Completion, GenerateRequest, ScoreGroup, Signal, TokenScores, Usage

VOCABULARY = 97
GROUP = ScoreGroup.model_validate(
    {
        "prompt_ids": [5, 9],
        "completions": [
            {"token_ids": [20, 3, 22], "candidate_ids": [[1, 3], [4, 90], [7, -1]]},
            {"token_ids": [8], "candidate_ids": [[1]]},
        ],
    }
)


def options_of(kind: str, url: str, tokenizer_dir: Path) -> Any:
    shared = {"kind": kind, "upstream": url, "deadline_s": 10.0}
    if kind == "chat":
        return ChatOptions.model_validate(shared | {"upstream_model": "toy"})
    cap = 5 if kind == "openai" else 64
    return UpstreamOptions.model_validate(shared | {"model": str(tokenizer_dir), "max_top_k": cap, "recheck_s": 0.0})


def check_blocks(blocks: Sequence[TokenScores], toy: ToyServer) -> None:
    """Whatever is valid is what the model says."""
    for block, completion in zip(blocks, GROUP.completions, strict=True):
        before = [GROUP.prompt_ids[-1], *completion.token_ids[:-1]]
        expected_RV = toy.engine.logprob_VV[before]
        arrays = block.arrays()
        rows = np.arange(block.rows)
        np.testing.assert_allclose(arrays["sampled_logprob"], expected_RV[rows, completion.token_ids], atol=1e-5)
        np.testing.assert_allclose(arrays["topk_logprob"], -np.sort(-expected_RV)[:, :3], atol=1e-5)
        valid = arrays["candidate_valid"]
        expected = expected_RV[rows[:, None], completion.candidate_ids]
        np.testing.assert_allclose(arrays["candidate_logprob"][valid], expected[valid], atol=1e-5)


# kind, traps, what the probe's refusal says; None where scores are right
SCORING: list[tuple[str, tuple[Trap, ...], str | None]] = [
    ("vllm", ("scale_out_off",), None),
    ("vllm", ("flat_ids",), None),
    ("vllm", ("v1_runner",), None),
    ("vllm", ("ids_ignored",), None),
    ("vllm", ("null_scores",), None),
    ("vllm", ("dtype",), None),
    ("vllm", ("huge_header",), None),
    ("vllm", ("low_cap",), None),
    ("vllm", ("defaults",), None),
    ("vllm", ("impossible",), None),
    ("vllm", ("impossible", "flat_ids"), None),
    ("vllm", ("overloaded",), None),
    ("vllm", ("row_short",), "2 tokens"),
    ("vllm", ("row_shifted",), "disagree|other log-probs"),
    ("vllm", ("logits",), "at most 0"),
    ("vllm", ("logits_below_0",), "not normalised"),
    ("vllm", ("logits_below_0", "flat_ids"), "not normalised"),
    ("vllm", ("unnormalised",), "leave room for a sum"),
    ("vllm", ("unnormalised", "low_cap"), "not normalised"),
    ("vllm", ("drift",), "differently|disagree"),
    ("vllm", ("uniform",), "without its weights"),
    ("vllm", ("other_tokenizer",), "tokenizer is not the one"),
    ("vllm", ("other_tokenizer", "no_tokenize"), "they spell the token 0 't1' and 't0'"),
    ("sglang", ("other_tokenizer",), "tokenizer is not the one"),
    ("sglang", ("other_tokenizer", "no_tokenize"), "they spell the token 0"),
    ("openai", ("other_tokenizer",), "they spell the token 0"),
    ("vllm", ("forbidden",), "check --api-key-file"),
    ("vllm", ("broken",), "failed 3 times"),
    ("sglang", ("impossible",), None),
    ("sglang", ("overloaded",), None),
    ("sglang", ("output_only",), "0 scored rows, asked were 1"),
    ("sglang", ("row_short",), "scored rows, asked were"),
    ("sglang", ("row_shifted",), "disagree|other log-probs"),
    ("sglang", ("uniform",), "without its weights"),
    ("sglang", ("logits_below_0",), "not normalised"),
    ("sglang", ("unnormalised",), "leave room for a sum"),
    ("openai", ("impossible", "no_prompt_logprobs"), None),
    ("openai", ("overloaded",), None),
    ("openai", ("no_prompt_logprobs", "texts"), None),
    ("openai", ("few_entries",), None),
    ("openai", ("no_prompt_logprobs", "echo_ignored"), "ignored echo"),
    ("openai", ("no_prompt_logprobs", "row_short"), "echoed 1 tokens of 2"),
    ("openai", ("no_prompt_logprobs", "row_shifted"), "disagree|other log-probs"),
    ("openai", ("drift",), "differently|disagree"),
    ("openai", ("logits_below_0",), "not normalised"),
    ("openai", ("no_prompt_logprobs", "logits_below_0"), "not normalised"),
    ("openai", ("unnormalised",), "leave room for a sum"),
    ("openai", ("uniform",), "without its weights"),
    ("openai", ("broken",), "failed 3 times"),
]


@pytest.mark.parametrize(("kind", "traps", "said"), SCORING, ids=lambda value: "+".join(value) if value else None)
async def test_right_scores_or_a_reason(
    kind: str, traps: tuple[Trap, ...], said: str | None, toy_tokenizer_dir: Path
) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=64), traps)
    async with listening(APPS[kind](toy)) as url:
        engine = await open_engine(options_of(kind, url, toy_tokenizer_dir), "toy")
        try:
            if said is not None:
                with pytest.raises(TutelageError, match=said):
                    await probe(Directly(engine), engine)
                return
            await probe(Directly(engine), engine)
            blocks, _ = await engine.score([GROUP], engine.capabilities.signals, 3)
            check_blocks(blocks, toy)
        finally:
            await engine.close()


@pytest.mark.parametrize(
    ("kind", "traps", "flaw"),
    [
        ("vllm", ("logits",), "positive"),
        ("vllm", ("row_short",), "length"),
        ("sglang", ("row_short",), "length"),
        ("openai", ("no_prompt_logprobs", "echo_ignored"), "length"),
        ("vllm", ("other_tokenizer",), "malformed"),
    ],
)
async def test_what_is_wrong_with_scores_is_said_in_a_word(
    kind: str, traps: tuple[Trap, ...], flaw: str, toy_tokenizer_dir: Path
) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=64), traps)
    async with listening(APPS[kind](toy)) as url:
        engine = await open_engine(options_of(kind, url, toy_tokenizer_dir), "toy")
        with pytest.raises(BadScores) as refused:
            await probe(Directly(engine), engine)
        await engine.close()
    assert refused.value.flaw == flaw


@pytest.mark.parametrize(
    ("kind", "traps", "max_length", "said"),
    [
        ("vllm", (), 64, None),
        ("vllm", (), 8, None),
        ("sglang", (), 3, None),
        ("openai", (), 2, None),
        ("openai", ("no_prompt_logprobs", "length_unsaid"), 64, None),
        ("vllm", (), 65, "--max-length is 65, and the upstream scores at most 64 tokens"),
        ("sglang", (), 1000, "give 64 or less"),
        ("openai", ("length_unsaid",), None, "does not say how long a sequence may be; give --max-length"),
        ("openai", ("length_unsaid",), 1000, "does not score 1000 tokens, .* give a smaller --max-length"),
        ("openai", ("no_prompt_logprobs", "length_unsaid"), 65, "does not score 65 tokens"),
        ("sglang", ("length_unsaid",), 1000, "does not score 1000 tokens"),
    ],
)
async def test_a_length_that_is_declared_is_one_that_is_scored(
    kind: str, traps: tuple[Trap, ...], max_length: int | None, said: str | None, toy_tokenizer_dir: Path
) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=64), traps)
    async with listening(APPS[kind](toy)) as url:
        options = options_of(kind, url, toy_tokenizer_dir).model_copy(update={"max_length": max_length})
        engine = await open_engine(options, "toy")
        try:
            if said is not None:
                with pytest.raises(TutelageError, match=said):
                    await probe(Directly(engine), engine)
                return
            found = await probe(Directly(engine), engine)
            assert (found["max_length"], found["length"]) == (
                max_length,
                f"{max_length} tokens of {max_length} were scored",
            )
        finally:
            await engine.close()


@pytest.mark.parametrize(
    ("kind", "traps", "said"),
    [
        ("vllm", (), "equal on a sample text and 2 special tokens; equal in the texts of 32 tokens"),
        ("sglang", ("no_tokenize",), "equal in the texts of 32 tokens"),
        ("openai", (), "equal in the texts of 32 tokens"),
        ("openai", ("no_prompt_logprobs", "texts"), "equal in the texts of 32 tokens"),
        ("openai", ("no_prompt_logprobs",), "as configured in --model, not verified"),
    ],
)
async def test_what_is_known_of_a_server_s_tokenizer_is_said(
    kind: str, traps: tuple[Trap, ...], said: str, toy_tokenizer_dir: Path
) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=64), traps)
    async with listening(APPS[kind](toy)) as url:
        engine = await open_engine(options_of(kind, url, toy_tokenizer_dir), "toy")
        found = await probe(Directly(engine), engine)
        assert found["tokenizer"].startswith(said)
        await engine.close()


async def test_candidates_of_too_large_a_union_are_found_in_the_top_k_or_bounded_by_it(toy_tokenizer_dir: Path) -> None:
    rows = MAX_UNION_CELLS // VOCABULARY + 1
    own_R = np.arange(rows, dtype=np.int32) % np.int32(VOCABULARY)
    asked_R = np.roll(own_R, -1)
    completion = Completion(token_ids=own_R, candidate_ids=asked_R[:, None])
    group = ScoreGroup(prompt_ids=np.array([5], dtype=np.int32), completions=(completion,))
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=rows + 1))
    async with listening(APPS["sglang"](toy)) as url:
        options = UpstreamOptions(kind="sglang", upstream=url, model=str(toy_tokenizer_dir), max_top_k=5)
        engine = await open_engine(options, "toy")
        try:
            await probe(Directly(engine), engine)
            (block,), _ = await engine.score([group], frozenset({Signal.CANDIDATES}), None)
        finally:
            await engine.close()
    arrays = block.arrays()
    expected_R = toy.engine.logprob_VV[[5, *own_R[:-1]], asked_R]
    valid_R = arrays["candidate_valid"][:, 0]
    assert 0 < valid_R.sum() < rows
    np.testing.assert_allclose(arrays["candidate_logprob"][valid_R, 0], expected_R[valid_R], atol=1e-5)
    assert np.isnan(arrays["candidate_logprob"][~valid_R]).all()
    assert (expected_R <= arrays["candidate_upper_bound"] + 1e-5)[~valid_R].all()


@pytest.mark.parametrize("kind", ["vllm", "sglang", "openai"])
async def test_a_model_that_changes_under_its_name_is_found_out(kind: str, toy_tokenizer_dir: Path) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY, max_length=64), ("model_changes",), changes_at=100)
    async with listening(APPS[kind](toy)) as url:
        engine = await open_engine(options_of(kind, url, toy_tokenizer_dir), "toy")
        await probe(Directly(engine), engine)
        check_blocks((await engine.score([GROUP], engine.capabilities.signals, 3))[0], toy)
        toy.calls = 101
        with pytest.raises(TutelageError, match=r"another model answers|answered as 'toy-2'"):
            await engine.score([GROUP], engine.capabilities.signals, 3)
        with pytest.raises(TutelageError, match=r"another model answers|answered as 'toy-2'|does not serve"):
            await engine.connect()
        await engine.close()


REQUEST = GenerateRequest(prompts=["t1 t2", [{"role": "user", "content": "t3"}]], n=2, max_tokens=64, seed=1)


# What hosted models refuse or ignore, one by one and as it comes together.
SURFACES: dict[tuple[Trap, ...], Surface] = {
    ("max_tokens",): Surface("max_tokens"),
    ("own_temperature",): Surface(takes=frozenset({"n", "seed", "logprobs"})),
    ("one_sampler",): Surface(takes=frozenset({"temperature", "n", "seed", "logprobs"})),
    ("ignores_n",): Surface(takes=frozenset(EXTRAS) - {"n"}),
    ("no_n",): Surface(takes=frozenset(EXTRAS) - {"n"}),
    ("no_seed",): Surface(takes=frozenset(EXTRAS) - {"seed"}),
    ("thinks",): Surface(),
    ("thinks", "own_temperature", "no_logprobs"): Surface(takes=frozenset({"n", "seed"})),
    ("max_tokens", "no_seed", "no_logprobs"): Surface("max_tokens", frozenset(EXTRAS) - {"seed", "logprobs"}),
    ("one_sampler", "no_n", "no_logprobs"): Surface(takes=frozenset({"temperature", "seed"})),
    ("own_temperature", "max_tokens", "ignores_n", "no_seed", "no_logprobs"): Surface("max_tokens", frozenset()),
}


@pytest.mark.parametrize(
    ("traps", "reasons"),
    [
        ((), {"stop", "length"}),
        (("no_logprobs",), {"stop", "length"}),
        (("overloaded",), {"stop", "length"}),
        (("refuses",), {"refused"}),
        (("truncates",), {"length"}),
        *((traps, {"stop", "length"}) for traps in SURFACES),
    ],
)
async def test_a_chat_model_writes_and_says_how_a_text_ended(
    traps: tuple[Trap, ...], reasons: set[str], toy_tokenizer_dir: Path
) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY), traps)
    async with listening(APPS["chat"](toy)) as url:
        engine = await open_engine(options_of("chat", url, toy_tokenizer_dir), "toy")
        found = await probe(Directly(engine), engine)
        assert found["output_logprobs"] == ("no_logprobs" not in traps)
        assert engine.capabilities.greedy == ("own_temperature" not in traps)
        generations, usage = await engine.generate(REQUEST)
        assert [len(row) for row in generations] == [2, 2]
        assert {one.finish_reason for row in generations for one in row} <= reasons
        assert usage.generated_tokens > 0
        with pytest.raises(InvalidInput, match="token ids"):
            await engine.generate(GenerateRequest(prompts=[[1, 2]]))
        await engine.close()


@pytest.mark.parametrize("traps", SURFACES, ids="+".join)
async def test_what_a_chat_model_takes_is_learned_from_a_few_words(traps: tuple[Trap, ...]) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY), traps)
    async with listening(APPS["chat"](toy)) as url:
        client = open_client(ChatOptions(upstream=url, upstream_model="toy"))
        tab = Tab()

        async def ask(parameters: dict[str, Any]) -> dict[str, Any]:
            messages = [{"role": "user", "content": "t1"}]
            return await client.chat(tab, Usage(), model="toy", messages=messages, **parameters)

        assert await learn_surface(ask) == SURFACES[traps]
        await client.close()
    assert toy.calls <= 10


async def test_where_all_is_taken_one_call_shows_it_and_the_surface_says_what_is_sent(toy_tokenizer_dir: Path) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY))
    async with listening(APPS["chat"](toy)) as url:
        engine = await open_engine(options_of("chat", url, toy_tokenizer_dir), "toy")
        found = await engine.connect()
        await engine.close()
    assert toy.calls == 1
    assert found["parameters"] == ["max_completion_tokens", *EXTRAS]
    assert found["judges_at"] == "temperature 0"


FULL, BARE = Surface(), Surface("max_tokens", frozenset())
ONE_SAMPLER = SURFACES[("one_sampler",)]


@pytest.mark.parametrize(
    ("surface", "asked", "sent"),
    [
        (FULL, {}, {"max_completion_tokens": 9, "temperature": 1, "seed": 5, "logprobs": True}),
        (FULL, {"top_p": 0.5}, {"max_completion_tokens": 9, "temperature": 1, "top_p": 0.5, "seed": 5}),
        (FULL, {"temperature": 0, "n": 3}, {"max_completion_tokens": 9, "temperature": 0, "n": 3, "seed": 5}),
        (ONE_SAMPLER, {"top_p": 0.5}, {"max_completion_tokens": 9, "top_p": 0.5, "seed": 5}),
        (BARE, {}, {"max_tokens": 9}),
        (BARE, {"stop": ["x"]}, {"max_tokens": 9, "stop": ["x"]}),
        (BARE, {"temperature": 0.7}, {"max_tokens": 9, "temperature": 0.7}),  # refused there, and not left out
    ],
)
def test_what_is_sent(surface: Surface, asked: dict[str, Any], sent: dict[str, Any]) -> None:
    request = GenerateRequest.model_validate({"prompts": ["t1"], "max_tokens": 9} | asked)
    assert surface.parameters(request, request.n, seed=5) == sent


async def test_answers_that_are_asked_for_one_by_one_have_the_seeds_of_those_asked_for_together(
    toy_tokenizer_dir: Path,
) -> None:
    texts: list[list[list[str]]] = []
    cases: tuple[tuple[Trap, ...], ...] = ((), ("ignores_n",))
    for traps in cases:
        toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY), traps)
        async with listening(APPS["chat"](toy)) as url:
            engine = await open_engine(options_of("chat", url, toy_tokenizer_dir), "toy")
            await engine.connect()
            before = toy.calls
            generations, _ = await engine.generate(REQUEST)
            assert toy.calls - before == (4 if traps else 2)
            texts.append([[one.text for one in row] for row in generations])
            await engine.close()
    assert [row[0] for row in texts[0]] == [row[0] for row in texts[1]]
    assert all(len(set(row)) == 2 for row in texts[1]), "each has a seed of its own"


async def test_a_chat_model_that_changes_under_its_name_is_found_out(toy_tokenizer_dir: Path) -> None:
    toy = ToyServer(FakeOptions(vocabulary_size=VOCABULARY), ("model_changes",))
    async with listening(APPS["chat"](toy)) as url:
        engine = await open_engine(options_of("chat", url, toy_tokenizer_dir), "toy")
        await engine.connect()
        assert engine.provenance.model_revision == "toy-2026-01-01 fp_1"
        toy.calls = 100
        await engine.generate(REQUEST)
        assert engine.provenance.model_revision == "toy-2026-01-01 fp_1, toy-2026-11-01 fp_1"
        toy.calls = 0
        await engine.generate(REQUEST)
        assert engine.provenance.model_revision == "toy-2026-01-01 fp_1, toy-2026-11-01 fp_1"
        await engine.close()


async def test_an_upstream_that_is_not_there_is_named_with_the_reason(toy_tokenizer_dir: Path) -> None:
    make: Callable[..., Any] = UpstreamOptions
    options = make(kind="vllm", upstream="http://127.0.0.1:9", model=str(toy_tokenizer_dir), deadline_s=0.2)
    engine = await open_engine(options, "toy")
    assert not engine.capabilities.signals
    with pytest.raises(TutelageError, match=r"http://127\.0\.0\.1:9 "):
        await engine.connect()
    await engine.close()
