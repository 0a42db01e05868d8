"""What a teacher did not score cannot reach the gradient; how rollouts are packed does not matter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.trainer.collate import collate, micro_batches, signals
from tutelage.trainer.marking import Scored
from tutelage.trainer.student import hidden_states
from tutelage_client.errors import BadScores
from tutelage_client.wire import TokenScores

SAMPLED = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "sampled"}}
few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def student(make_spec: Any, make_student: Any) -> Any:
    return make_student(make_spec(SAMPLED))


def assert_close(one: Any, other: Any, atol: float) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=atol)


@few
@given(seed=st.integers(0, 10**6), data=st.data())
def test_a_rollout_without_scores_is_as_if_it_were_not_there(
    student: Any, random_rollouts: Any, random_scores: Any, gradient_of: Any, seed: int, data: Any
) -> None:
    rollouts = random_rollouts(5, seed)
    lost = data.draw(st.sets(st.integers(0, 4), max_size=4))
    scored = [Scored(r, None if i in lost else random_scores(r, seed + i)) for i, r in enumerate(rollouts)]
    kept = [s for s in scored if s.scores is not None]
    assert_close(gradient_of(student, scored), gradient_of(student, kept), 0)


@few
@given(seed=st.integers(0, 10**6), data=st.data())
def test_a_row_that_was_not_scored_changes_nothing_and_is_not_counted(
    student: Any, random_rollouts: Any, random_scores: Any, gradient_of: Any, seed: int, data: Any
) -> None:
    rollouts = random_rollouts(4, seed)
    holes = [data.draw(st.sets(st.integers(0, len(r.completion_ids) - 1))) for r in rollouts]
    holes[0] = holes[0] - {0}  # something is left to learn from
    unscored, masked = [], []
    for i, (rollout, hole) in enumerate(zip(rollouts, holes, strict=True)):
        unscored.append(Scored(rollout, random_scores(rollout, i, sorted(hole))))
        mask = np.array([row not in hole for row in range(len(rollout.completion_ids))])
        masked.append(Scored(rollout.model_copy(update={"mask": mask}), random_scores(rollout, i)))
    found = gradient_of(student, unscored)
    assert all(g.isfinite().all() for g in found.values())
    assert any(g.abs().max() > 0 for g in found.values())
    assert_close(found, gradient_of(student, masked), 0)


@few
@given(seed=st.integers(0, 10**6), max_tokens=st.integers(1, 64))
def test_the_cut_into_micro_batches_does_not_change_the_gradient(
    student: Any, random_rollouts: Any, random_scores: Any, gradient_of: Any, seed: int, max_tokens: int
) -> None:
    scored = [Scored(r, random_scores(r, i)) for i, r in enumerate(random_rollouts(6, seed))]
    assert_close(gradient_of(student, scored, max_tokens), gradient_of(student, scored, 10**6), 1e-4)


@few
@given(seed=st.integers(0, 10**6), order=st.permutations(range(5)), pad_id=st.integers(0, 27))
def test_order_and_padding_do_not_matter(
    student: Any, random_rollouts: Any, random_scores: Any, gradient_of: Any, seed: int, order: list[int], pad_id: int
) -> None:
    scored = [Scored(r, random_scores(r, i)) for i, r in enumerate(random_rollouts(5, seed))]
    shuffled = [scored[i] for i in order]
    assert_close(gradient_of(student, scored), gradient_of(student, shuffled, pad_id=pad_id), 1e-6)


def test_a_token_is_predicted_by_the_position_before_it(
    student: Any, random_rollouts: Any, gradient_of: Any, random_scores: Any
) -> None:
    """A teacher that says the student's own log-probs leaves nothing to learn; any other does."""
    student.model.eval()
    own, other = [], []
    for i, rollout in enumerate(random_rollouts(4, 1)):
        ids = torch.from_numpy(np.concatenate([rollout.prompt_ids, rollout.completion_ids])).long()
        with torch.no_grad():
            logp = student.model(input_ids=ids[None]).logits[0].log_softmax(-1)
        start = len(rollout.prompt_ids)
        said = [float(logp[t - 1, ids[t]]) for t in range(start, len(ids))]
        own.append(Scored(rollout, TokenScores(start=start, valid=[True] * len(said), sampled_logprob=said)))  # type: ignore[arg-type]
        other.append(Scored(rollout, random_scores(rollout, i)))
    assert max(g.abs().max() for g in gradient_of(student, own).values()) < 1e-5
    assert max(g.abs().max() for g in gradient_of(student, other).values()) > 1e-2


def test_the_rows_of_a_batch_are_the_completion_tokens_in_order(student: Any, make_rollout: Any) -> None:
    rollouts = [make_rollout(0, [2, 3], [4, 5, 6]), make_rollout(1, [7], [8])]
    batch = collate([Scored(r, None) for r in rollouts], 0, torch.device("cpu"), None, asks_teacher=False)
    assert batch.input_ids_BT.tolist() == [[2, 3, 4, 5, 6], [7, 8, 0, 0, 0]]
    assert batch.attention_mask_BT.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch.token_ids_R.tolist() == [4, 5, 6, 8]
    assert batch.predictor_R.tolist() == [1, 2, 3, 5]
    assert batch.behaviour_logprob_R.isnan().all()
    hidden = hidden_states(student.model, batch.input_ids_BT, batch.attention_mask_BT)
    assert hidden.shape[:2] == (2, 5)


ARRAYS = ("sampled", "top_k", "candidates", "entropy")


def block(rollout: Any, arrays: set[str], width: int) -> Scored:
    """Scores with these arrays; every number tells its rollout and row."""
    rows = len(rollout.completion_ids)
    tag = -(int(rollout.id[1:]) + 5) - np.arange(rows, dtype=np.float32) / 100
    wide, ids = np.repeat(tag[:, None], width, axis=1), np.tile(np.arange(width, dtype=np.int32), (rows, 1))
    fields: dict[str, dict[str, Any]] = {
        "sampled": {"sampled_logprob": tag},
        "top_k": {"topk_ids": ids, "topk_logprob": wide, "topk_rest_mass": np.zeros(rows, np.float32)},
        "candidates": {"candidate_logprob": wide, "candidate_valid": np.ones((rows, width), bool)},
        "entropy": {"entropy": -tag},
    }
    given_fields = {name: value for kind in sorted(arrays) for name, value in fields[kind].items()}
    scores = TokenScores(start=len(rollout.prompt_ids), valid=np.ones(rows, dtype=bool), **given_fields)
    return Scored(rollout, scores, ids if "candidates" in arrays else None)


layouts = st.tuples(st.sets(st.sampled_from(ARRAYS)), st.integers(1, 3))


@few
@given(seed=st.integers(0, 10**6), layout=layouts)
def test_every_row_keeps_the_numbers_of_its_own_rollout(
    random_rollouts: Any, seed: int, layout: tuple[set[str], int]
) -> None:
    items = [block(rollout, *layout) for rollout in random_rollouts(4, seed)]
    joined = signals(items, torch.device("cpu"), None)
    tags = np.concatenate([block(s.rollout, {"sampled"}, 1).scores.sampled_logprob for s in items])  # type: ignore[union-attr]
    assert len(joined.valid_R) == len(tags)
    expected = {
        "sampled": (joined.sampled_logprob_R, tags),
        "top_k": (joined.topk_logprob_RK, tags[:, None].repeat(layout[1], 1)),
        "candidates": (joined.candidate_logprob_RC, tags[:, None].repeat(layout[1], 1)),
        "entropy": (joined.entropy_R, -tags),
    }
    for kind, (found, wanted) in expected.items():
        if kind in layout[0]:
            np.testing.assert_array_equal(found, wanted)
        else:
            assert found is None
    assert (joined.candidate_ids_RC is not None) == ("candidates" in layout[0])


@few
@given(seed=st.integers(0, 10**6), one=layouts, other=layouts, at=st.integers(0, 3))
def test_rollouts_whose_scores_hold_other_arrays_do_not_share_a_batch(
    random_rollouts: Any, seed: int, one: tuple[set[str], int], other: tuple[set[str], int], at: int
) -> None:
    items = [block(rollout, *(other if i == at else one)) for i, rollout in enumerate(random_rollouts(4, seed))]
    wide = {"top_k", "candidates"}
    if one[0] == other[0] and (one[1] == other[1] or not one[0] & wide):
        signals(items, torch.device("cpu"), None)
    else:
        with pytest.raises(BadScores, match=f"rollout r00{at or 1} hold .*, those of r000 "):
            signals(items, torch.device("cpu"), None)


def test_a_bound_that_only_some_replies_need_does_not_part_them(random_rollouts: Any) -> None:
    items = [block(rollout, {"candidates"}, 2) for rollout in random_rollouts(2, 0)]
    assert items[0].scores is not None
    bound = np.full(items[0].scores.rows, -9, dtype=np.float32)
    bounded = replace(items[0], scores=items[0].scores.model_copy(update={"candidate_upper_bound": bound}))
    assert signals([bounded, items[1]], torch.device("cpu"), None).candidate_logprob_RC is not None


def test_a_rollout_whose_candidates_are_not_known_does_not_pass(random_rollouts: Any) -> None:
    items = [block(rollout, {"candidates"}, 2) for rollout in random_rollouts(2, 0)]
    with pytest.raises(BadScores, match="candidate_ids"):
        signals([items[0], replace(items[1], candidate_ids=None)], torch.device("cpu"), None)


@few
@given(seed=st.integers(0, 10**6), max_tokens=st.integers(1, 60))
def test_pairs_stand_together_whatever_the_size_of_a_batch(
    make_rollout: Any, random_scores: Any, student: Any, seed: int, max_tokens: int
) -> None:
    """Two prompts with a pair each, one of them twice; one with the student's text alone, one with data alone."""
    drawn = np.random.default_rng(seed)
    prompts = {"a": [2, 3], "b": [4, 5, 6], "c": [7], "d": [8]}
    texts = ["a data", "a student", "b data", "b student", "c student", "d data", "a data", "a student"]
    scored = []
    for index, (prompt, source) in enumerate(text.split() for text in texts):
        completion = [2 + index, *drawn.integers(2, 28, drawn.integers(0, 8))]  # no two alike
        rollout = make_rollout(index, prompts[prompt], completion, source=source)
        scored.append(Scored(rollout, random_scores(rollout, seed + index)))
    batches = list(micro_batches(scored, max_tokens, 0, student.device, {}, asks_teacher=True, in_pairs=True))
    assert sum(len(batch.input_ids_BT) for batch in batches) == 6
    known = {tuple(s.rollout.completion_ids.tolist()): s.rollout for s in scored}
    for batch in batches:
        rows = [batch.token_ids_R[batch.rollout_R == row].tolist() for row in range(len(batch.input_ids_BT))]
        written = [known[tuple(row)] for row in rows]
        for better, other in zip(written[::2], written[1::2], strict=True):
            assert (better.source, other.source) == ("data", "student")
            assert better.prompt_ids.tolist() == other.prompt_ids.tolist()
