"""Batches are cut by length so that little is padded, and every state comes back in its place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from tutelage.engines.encoding import Encoder, shares_prompts
from tutelage_client.wire import ScoreGroup


def last_hidden(output: Any) -> torch.Tensor:
    return output.last_hidden_state


@pytest.fixture(scope="module")
def base() -> Any:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config).eval().base_model


@torch.no_grad()
def one_by_one(base: Any, groups: list[ScoreGroup]) -> torch.Tensor:
    parts = []
    for group in groups:
        for completion in group.completions:
            ids = torch.tensor([[*group.prompt_ids.tolist(), *completion.token_ids.tolist()]])
            parts.append(base(input_ids=ids).last_hidden_state[0, len(group.prompt_ids) - 1 : -1])
    return torch.cat(parts)


def group(prompt: int, *completions: int) -> ScoreGroup:
    """A group by its lengths; what the ids are follows from them."""
    ids = [[(7 * i + 3 * n + prompt) % 50 for i in range(n)] for n in (prompt, *completions)]
    return ScoreGroup.model_validate({"prompt_ids": ids[0], "completions": [{"token_ids": c} for c in ids[1:]]})


lengths = st.one_of(st.integers(1, 12), st.integers(100, 240))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(lengths, st.lists(lengths, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_states_do_not_depend_on_how_a_batch_is_cut(base: Any, shapes: list[tuple[int, list[int]]]) -> None:
    groups = [group(prompt, *completions) for prompt, completions in shapes]
    with torch.no_grad():
        states_NH = Encoder(base, last_hidden, 0, shares=True).states(groups)
    torch.testing.assert_close(states_NH, one_by_one(base, groups), atol=1e-4, rtol=0)


def test_a_long_sequence_does_not_pad_short_ones(base: Any) -> None:
    shapes: list[tuple[int, ...]] = []
    handle = base.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with torch.no_grad():
        Encoder(base, last_hidden, 0, shares=True).states([group(4, 5), group(200, 201), group(10, 11), group(150, 60)])
    handle.remove()
    assert sorted(shapes) == [(1, 209), (1, 400), (2, 20)]


def test_completions_of_a_group_are_padded_to_their_like_alone(base: Any) -> None:
    shapes: list[tuple[int, ...]] = []
    handle = base.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with torch.no_grad():
        Encoder(base, last_hidden, 0, shares=True).states([group(100, 9, 301, 11, 291), group(100, 8, 1)])
    handle.remove()
    assert sorted(shapes) == [(2, 100), (2, 300), (3, 10)]


def test_sharing_is_given_up_where_the_cache_does_not_carry_the_prompt(base: Any) -> None:
    class Forgetful(torch.nn.Module):
        """A model that ignores what its cache holds."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = base
            self.config = base.config

        def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **rest: Any) -> Any:
            if past_key_values is not None and past_key_values.get_seq_length():
                return self.inner(input_ids=input_ids, use_cache=False)
            return self.inner(input_ids=input_ids, past_key_values=past_key_values, **rest)

    with torch.no_grad():
        assert shares_prompts(base, last_hidden, 0)
        assert not shares_prompts(Forgetful(), last_hidden, 0)
