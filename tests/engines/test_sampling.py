"""Sampling says what it drew from, and rows do not disturb one another."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tutelage.engines.sampling import Sampled, sample

PROMPTS = [[1, 10, 20, 30], [1, 40], [1, 50, 60, 70, 80, 90, 100], [1, 40], [5], [1, 10, 20, 31]]
EOS = frozenset({2})
MANY_ENDS = frozenset(range(2, 90))


def run(model: PreTrainedModel, prompts: list[list[int]], *, seed: int = 3, **changes: object) -> list[Sampled]:
    settings: dict = {"max_new_tokens": 12, "temperature": 1.0, "eos_ids": EOS, "pad_id": 0} | changes
    return list(sample(model, prompts, generator=torch.Generator().manual_seed(seed), **settings))


def by_index(rows: list[Sampled]) -> dict[int, Sampled]:
    return {row.index: row for row in rows}


@torch.no_grad()
def fresh_logprobs(
    model: PreTrainedModel, prompt: list[int], row: Sampled, temperature: float, top_p: float
) -> torch.Tensor:
    """Log-probs of the finished text from one plain forward, written without the code under test."""
    ids = torch.tensor([prompt + row.token_ids])
    logprob_TV = (model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    out = []
    for logprob_V, token in zip(logprob_TV, row.token_ids, strict=True):
        kept, mass = [], 0.0
        for i in logprob_V.argsort(descending=True).tolist():
            if mass >= top_p:
                break
            kept.append(i)
            mass += float(logprob_V[i].exp())
        assert token in kept
        out.append(logprob_V[token] - logprob_V[kept].logsumexp(0))
    return torch.stack(out)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.9), (1.3, 0.6)])
def test_log_probs_are_those_of_the_distribution_that_was_drawn_from(
    model: PreTrainedModel, temperature: float, top_p: float
) -> None:
    rows = run(model, PROMPTS * 3, temperature=temperature, top_p=top_p)
    assert sorted(row.index for row in rows) == list(range(18))
    for row in rows:
        expected = fresh_logprobs(model, (PROMPTS * 3)[row.index], row, temperature, top_p)
        torch.testing.assert_close(torch.tensor(row.logprobs), expected, atol=2e-4, rtol=0)


def test_greedy_text_is_that_of_generate_with_the_log_probs_of_temperature_one(model: PreTrainedModel) -> None:
    for row in run(model, PROMPTS, temperature=0.0):
        prompt = torch.tensor([PROMPTS[row.index]])
        generated = model.generate(  # pyright: ignore[reportCallIssue]
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=12
        )
        assert row.token_ids == generated[0, prompt.shape[1] :].tolist()
        expected = fresh_logprobs(model, PROMPTS[row.index], row, 1.0, 1.0)
        torch.testing.assert_close(torch.tensor(row.logprobs), expected, atol=2e-4, rtol=0)


def test_a_row_is_the_same_whether_others_end_early_or_not(model: PreTrainedModel) -> None:
    prompts = PROMPTS * 4
    whole, ending = by_index(run(model, prompts, eos_ids=frozenset())), by_index(run(model, prompts, eos_ids=MANY_ENDS))
    lengths = {len(row.token_ids) for row in ending.values()}
    assert len(lengths) > 2
    for index, row in ending.items():
        assert row.token_ids == whole[index].token_ids[: len(row.token_ids)]


def test_a_row_does_not_depend_on_the_prompts_of_the_others(model: PreTrainedModel) -> None:
    one = by_index(run(model, PROMPTS))
    other = by_index(run(model, [PROMPTS[0], *([[1, 99, 98]] * 5)]))
    assert one[0].token_ids == other[0].token_ids


def test_an_end_token_closes_the_text_and_is_part_of_it(model: PreTrainedModel) -> None:
    rows = run(model, PROMPTS * 4, eos_ids=MANY_ENDS)
    assert {row.finish_reason for row in rows} == {"stop"} | {
        row.finish_reason for row in rows if len(row.token_ids) == 12
    }
    for row in rows:
        assert not MANY_ENDS & set(row.token_ids[:-1])
        assert (row.finish_reason == "stop") == (row.token_ids[-1] in MANY_ENDS)
        assert len(row.logprobs) == len(row.token_ids)


def test_without_an_end_token_every_text_has_the_full_length(model: PreTrainedModel) -> None:
    rows = run(model, PROMPTS, eos_ids=frozenset())
    assert {(row.finish_reason, len(row.token_ids)) for row in rows} == {("length", 12)}


def test_rows_are_yielded_before_the_last_one_ends(model: PreTrainedModel) -> None:
    forwards: list[int] = []
    handle = model.register_forward_hook(lambda *_: forwards.append(1))
    rows = sample(
        model,
        PROMPTS * 4,
        max_new_tokens=12,
        temperature=1.0,
        eos_ids=MANY_ENDS,
        pad_id=0,
        generator=torch.Generator().manual_seed(3),
    )
    first = next(rows)
    assert len(forwards) == len(first.token_ids) < 12
    assert not torch.is_inference_mode_enabled()
    assert len(list(rows)) == 23
    handle.remove()


def test_ended_rows_leave_the_batch(model: PreTrainedModel) -> None:
    widths: list[int] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    rows = run(model, PROMPTS * 4, eos_ids=MANY_ENDS)
    handle.remove()
    running = [sum(len(row.token_ids) > step for row in rows) for step in range(1, len(widths))]
    assert widths == [len({tuple(p) for p in PROMPTS}), *running]


def test_waves_cover_every_prompt_once_with_true_log_probs(model: PreTrainedModel) -> None:
    rows = run(model, PROMPTS * 2, max_rows=5)
    assert sorted(row.index for row in rows) == list(range(12))
    for row in rows:
        expected = fresh_logprobs(model, (PROMPTS * 2)[row.index], row, 1.0, 1.0)
        torch.testing.assert_close(torch.tensor(row.logprobs), expected, atol=2e-4, rtol=0)


def test_the_seed_decides_the_text(model: PreTrainedModel) -> None:
    texts = [[row.token_ids for row in sorted(run(model, PROMPTS, seed=s), key=lambda r: r.index)] for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_draws_follow_the_distribution(model: PreTrainedModel) -> None:
    rows = run(model, [[1, 40]] * 4000, max_new_tokens=1, max_rows=4000)
    with torch.no_grad():
        expected_V = model(torch.tensor([[1, 40]])).logits[0, -1].softmax(-1)
    drawn_V = torch.bincount(torch.tensor([row.token_ids[0] for row in rows]), minlength=259) / len(rows)
    assert float((drawn_V - expected_V).abs().max()) < 4 * (0.25 / 4000) ** 0.5


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft calls it
def test_a_model_with_an_adapter_is_sampled_with_it(make_model: Callable[[str], PreTrainedModel]) -> None:
    adapted = get_peft_model(make_model("llama"), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    adapted.eval()
    rows = run(adapted, PROMPTS)  # pyright: ignore[reportArgumentType]
    for row in rows:
        expected = fresh_logprobs(adapted, PROMPTS[row.index], row, 1.0, 1.0)  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(torch.tensor(row.logprobs), expected, atol=2e-4, rtol=0)


@pytest.mark.parametrize(("training", "prompts"), [(True, [[1]]), (False, [[1], []])])
def test_what_cannot_be_sampled_is_refused(model: PreTrainedModel, training: bool, prompts: list[list[int]]) -> None:
    model.train(training)
    try:
        with pytest.raises(ValueError, match="training mode" if training else "no tokens"):
            run(model, prompts)
    finally:
        model.eval()
