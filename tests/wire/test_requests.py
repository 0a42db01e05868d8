"""Rules of score requests, rollouts and rewards; and the list of what the wire exports."""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import Any

import damaged
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from tutelage_client import wire
from tutelage_client.errors import BadScores, InvalidInput
from tutelage_client.wire import (
    Completion,
    Message,
    Reward,
    RewardRequest,
    Rollout,
    ScoreGroup,
    ScoreRequest,
    decode_request,
    decode_reward_reply,
    decode_reward_request,
    is_reward_request,
    needs_model,
)
from tutelage_client.wire.refusal import explain

SEQUENCE = {"token_ids": [1, 2, 3], "score_start": 1}
IDS_ARE = "token ids are whole numbers from 0 to 2147483647"
ITEM = {"prompt": "p", "completion": "c"}
IDS = st.integers(-1, 6) | st.integers(2**31 - 3, 2**31 - 1)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"sequences": []}, "at least 1 item"),
        ({"sequences": [SEQUENCE], "signals": []}, "at least 1 item"),
        ({"sequences": [SEQUENCE], "signals": ["sampled"], "top_k": 3}, "go together"),
        ({"sequences": [SEQUENCE], "signals": ["top_k"]}, "go together"),
        ({"sequences": [SEQUENCE], "signals": ["top_k"], "top_k": 0}, "greater than or equal to 1"),
        ({"sequences": [SEQUENCE], "signals": ["candidates"]}, "needs candidate_ids on every sequence"),
        ({"sequences": [SEQUENCE | {"candidate_ids": [[1], [2]]}]}, "candidate_ids are given"),
        ({"sequences": [SEQUENCE | {"candidate_ids": [[1]]}], "signals": ["candidates"]}, "1 rows for 2 scored tokens"),
        (
            {"sequences": [SEQUENCE | {"candidate_ids": [[1, 4], [5, 5]]}], "signals": ["candidates"]},
            "row 1 repeats the id 5; name each id of a row once",
        ),
        (
            {"sequences": [SEQUENCE | {"candidate_ids": np.array([1, 4])}], "signals": ["candidates"]},
            r"the shape is \[2\]; give a row of ids",
        ),
        ({"sequences": [SEQUENCE | {"score_start": 0}]}, "greater than or equal to 1"),
        ({"sequences": [SEQUENCE | {"score_start": 3}]}, "at least one token to score"),
        ({"sequences": [SEQUENCE | {"token_ids": [1, -2, 3]}]}, f"entry 1 is -2; {IDS_ARE}"),
        ({"sequences": [SEQUENCE | {"token_ids": [1, 2.5, 3]}]}, f"entry 1 is 2.5; {IDS_ARE}"),
        ({"sequences": [SEQUENCE | {"token_ids": [1, True, 3]}]}, f"entry 1 is true; {IDS_ARE}"),
        ({"sequences": [SEQUENCE | {"token_ids": [False]}]}, f"entry 0 is false; {IDS_ARE}"),
        ({"sequences": [SEQUENCE | {"token_ids": [1, "2" * 999]}]}, f'entry 1 is "2{{39}}; {IDS_ARE}'),
        ({"sequences": [SEQUENCE | {"token_ids": [1, 99999999999999]}]}, f"entry 1 is 99999999999999; {IDS_ARE}"),
        ({"sequences": [SEQUENCE | {"token_ids": [1, 10**30]}]}, f"entry 1 is 10{{30}}; {IDS_ARE}"),
        ({"sequences": [SEQUENCE | {"token_ids": [[1], [True]]}]}, f"entry 0 of row 1 is true; {IDS_ARE}"),
        (
            {"sequences": [SEQUENCE | {"candidate_ids": [[1, 2], [1, -2]]}], "signals": ["candidates"]},
            f"entry 1 of row 1 is -2; {IDS_ARE}, and -1 pads",
        ),
        (
            {"sequences": [SEQUENCE | {"candidate_ids": [[4, 2], [3, True]]}], "signals": ["candidates"]},
            "entry 1 of row 1 is true",
        ),
        (
            {"sequences": [SEQUENCE | {"candidate_ids": [[1, 2], [1]]}], "signals": ["candidates"]},
            "row 1 has 1 id and row 0 has 2 ids; give all as many, -1 pads a shorter row",
        ),
        (
            {"sequences": [SEQUENCE | {"candidate_ids": [[], [1, 2]]}], "signals": ["candidates"]},
            "row 1 has 2 ids and row 0 has 0 ids",
        ),
        ({"sequences": [{"prompt_ids": [], "completions": [{"token_ids": [1]}]}]}, "prompt_ids is empty"),
        ({"sequences": [{"prompt_ids": [1], "completions": []}]}, "at least 1 item"),
        ({"sequences": [{"prompt_ids": [1], "completions": [{"token_ids": []}]}]}, "at least one token"),
        ({"sequences": [SEQUENCE], "signals": ["logits"]}, "sampled"),
        ({"sequences": [SEQUENCE], "temperature": 2}, "temperature"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ScoreRequest.model_validate(request_)


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        (ScoreRequest, {"sequences": [SEQUENCE, SEQUENCE | {"token_ids": ["x"]}]}, "sequences.1.token_ids"),
        (ScoreRequest, {"sequences": [SEQUENCE | {"top_k": 3}]}, "sequences.0.top_k"),
        (
            ScoreRequest,
            {"sequences": [{"prompt_ids": [1], "completions": [{}]}]},
            "sequences.0.completions.0.token_ids",
        ),
        (ScoreRequest, {"sequences": ["text"]}, "sequences.0"),
        (RewardRequest, {"items": [], "reward": {"kind": "contains"}}, "items"),
        (RewardRequest, {"items": [ITEM], "reward": {"kind": "contains", "ignore": True}}, "reward.ignore"),
        (RewardRequest, {"items": [ITEM], "reward": {"kind": "contain"}}, "reward.kind"),
        (RewardRequest, {"items": [ITEM], "reward": {"kind": "pattern", "pattern": "("}}, "reward.pattern"),
        (RewardRequest, {"items": [ITEM], "reward": {"kind": "rubric", "rubric": ""}}, "reward.rubric"),
        (RewardRequest, {"items": [ITEM], "reward": {"kind": "rubric", "rubric": "r", "lowest": 9}}, "reward"),
        (
            RewardRequest,
            {"items": [ITEM], "reward": {"kind": "pairwise", "rubric": "r", "against": "x"}},
            "reward.against",
        ),
    ],
)
def test_an_error_names_the_fields_that_were_sent(kind: type[Message], body: dict[str, Any], field: str) -> None:
    for read in (kind.model_validate, lambda body: kind.model_validate_json(json.dumps(body))):
        with pytest.raises(ValidationError) as refused:
            read(body)
        sentence, named = explain(refused.value)
        assert named == field
        assert sentence.startswith(f"{field}: ")


def test_a_sequence_is_a_group_of_one() -> None:
    (group,) = ScoreRequest.model_validate({"sequences": [SEQUENCE | {"score_start": 2}]}).groups()
    assert isinstance(group, ScoreGroup)
    assert (group.prompt_ids.tolist(), group.completions[0].token_ids.tolist()) == ([1, 2], [3])
    assert (group.longest, group.scored_tokens) == (3, 1)


ROLLOUT = {
    "id": "r",
    "source": "student",
    "policy_version": 0,
    "prompt_ids": [1],
    "completion_ids": [2, 3],
    "mask": [True, False],
    "behaviour_logprob": [-1.0, -0.5],
}


def test_a_rollout_survives_json() -> None:
    rollout = Rollout.model_validate(ROLLOUT)
    assert Rollout.model_validate_json(rollout.model_dump_json()).model_dump_json() == rollout.model_dump_json()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"completion_ids": []}, "at least one"),
        ({"prompt_ids": []}, "at least one"),
        ({"mask": [True]}, "mask has 1 entries for 2"),
        ({"mask": [2, 3]}, "true or false"),
        ({"behaviour_logprob": [-1.0]}, "behaviour_logprob has 1 entries for 2"),
        ({"behaviour_logprob": [-1.0, 0.5]}, "at most 0"),
        ({"behaviour_logprob": [-1.0, None]}, "finite"),
        ({"behaviour_logprob": [-1.0, float("-inf")]}, "finite"),
        ({"policy_version": -1}, "greater than or equal to 0"),
        ({"source": "mix"}, "student"),
        ({"reward": 1.0}, "reward"),
    ],
)
def test_a_rollout_that_cannot_be_learned_from_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Rollout.model_validate(ROLLOUT | changes)


@pytest.mark.parametrize("reward", [{"value": None, "valid": True}, {"value": 0.0, "valid": False}])
def test_a_reward_has_a_value_exactly_if_it_is_valid(reward: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a valid reward has a value"):
        Reward.model_validate(reward)


def test_the_wire_exports_every_message_in_order() -> None:
    def order(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert wire.__all__ == sorted(wire.__all__, key=order)
    modules = [
        importlib.import_module(f"{wire.__name__}.{found.name}") for found in pkgutil.iter_modules(wire.__path__)
    ]
    messages = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    }
    assert len(messages) > 30
    assert messages <= set(wire.__all__)
    assert all(hasattr(wire, name) for name in wire.__all__)


def test_a_payload_that_is_no_reward_request_is_refused_with_what_is_wrong() -> None:
    for payload, said in (
        (b"reward-request.v2\n{}", "schema is 'reward-request.v2', expected 'reward-request.v1'"),
        (b"reward-request.v1\n{}", "items: it is missing"),
        (b"reward-request.v1\n", "JSON"),
    ):
        assert is_reward_request(payload)
        with pytest.raises(InvalidInput, match=said):
            decode_reward_request(payload)


def test_an_answer_that_is_no_reward_reply_is_not_taken_for_one() -> None:
    for payload in (b"", b"reward-reply.v2\n{}", b"reward-reply.v1\n{}", b"\xff\xfe"):
        with pytest.raises(BadScores):
            decode_reward_reply(payload)


def test_only_kinds_that_ask_the_model_need_one() -> None:
    kinds = {"exact_match": {}, "rubric": {"rubric": "r"}, "pairwise": {"rubric": "r"}, "reward_model": {}}
    rewards = [RewardRequest.model_validate({"items": [ITEM], "reward": {"kind": k} | v}) for k, v in kinds.items()]
    assert [needs_model(request.reward) for request in rewards] == [False, True, True, True]


ROWS = st.integers(0, 5).flatmap(lambda width: st.lists(st.lists(IDS, min_size=width, max_size=width), min_size=1))


@given(ROWS)
def test_candidates_are_refused_exactly_where_a_row_names_an_id_twice(rows: list[list[int]]) -> None:
    body = {"token_ids": [9] * len(rows), "candidate_ids": rows}
    repeats = [[each for each in sorted(set(row)) if each >= 0 and row.count(each) > 1] for row in rows]
    if not any(repeats):
        assert Completion.model_validate(body).candidate_ids is not None
        return
    first = next(row for row, ids in enumerate(repeats) if ids)
    with pytest.raises(ValidationError) as refused:
        Completion.model_validate(body)
    sentence, field = explain(refused.value)
    assert field == "candidate_ids"
    assert f"row {first} repeats the id {repeats[first][0]};" in sentence


@given(damaged.binary)
def test_whatever_bytes_come_they_are_a_score_request_or_refused(body: bytes) -> None:
    try:
        request = decode_request(body)
    except ValidationError as error:
        assert explain(error)[0]
    except InvalidInput as error:
        assert "\n" not in str(error)
    else:
        assert request.groups()
