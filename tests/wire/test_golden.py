"""The JSON of the main messages, as it is written down: a change of the wire is seen here first.

A file that is meant to change is edited by hand, so that the change stands in the review.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tutelage_client.spec import RunSpec
from tutelage_client.wire import (
    CheckpointCommit,
    EventReport,
    GenerateReply,
    GenerateRequest,
    Heartbeat,
    Inspection,
    Lease,
    Outcome,
    Problem,
    RewardReply,
    RewardRequest,
    Rollout,
    RolloutView,
    RunView,
    SampleReply,
    SampleRequest,
    ScoreReply,
    ScoreRequest,
    StepReport,
    TeacherInfo,
    decode_reward_reply,
    decode_reward_request,
    encode_reward_reply,
    encode_reward_request,
)
from tutelage_client.wire.message import read_reply

GOLDEN = Path(__file__).parent / "golden"
MESSAGES: dict[str, type[BaseModel]] = {
    "checkpoint_commit": CheckpointCommit,
    "event_report": EventReport,
    "generate_reply": GenerateReply,
    "generate_request": GenerateRequest,
    "heartbeat": Heartbeat,
    "inspection": Inspection,
    "lease": Lease,
    "outcome": Outcome,
    "pairwise_request": RewardRequest,
    "problem": Problem,
    "reward_reply": RewardReply,
    "reward_request": RewardRequest,
    "rubric_request": RewardRequest,
    "rollout": Rollout,
    "rollout_view": RolloutView,
    "run_spec": RunSpec,
    "run_view": RunView,
    "sample_reply": SampleReply,
    "sample_request": SampleRequest,
    "score_reply": ScoreReply,
    "score_request": ScoreRequest,
    "step_report": StepReport,
    "teacher_info": TeacherInfo,
}

REPLIES = ("generate_reply", "inspection", "lease", "reward_reply", "rollout_view", "run_view", "teacher_info")


def unordered(value: Any) -> Any:
    """Sets of signals have no order in JSON."""
    if isinstance(value, dict):
        return {k: sorted(v) if k == "signals" else unordered(v) for k, v in value.items()}
    return [unordered(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_message_is_written_as_it_always_was(name: str) -> None:
    text = (GOLDEN / f"{name}.json").read_text()
    message = MESSAGES[name].model_validate_json(text)
    assert unordered(json.loads(message.model_dump_json())) == json.loads(text)
    assert message.model_dump(mode="json").keys() == MESSAGES[name].model_fields.keys()


def grown(value: Any, told: Any) -> Any:
    """What a newer release might tell: every message in it has one more key. told: the same as JSON"""
    if isinstance(value, BaseModel):
        own = {name: grown(getattr(value, name), each) for name, each in told.items()}
        return own | {"of_a_newer_release": {"kind": "unheard of"}}
    if isinstance(value, dict):
        return {name: grown(each, told[str(name)]) for name, each in value.items()}
    return [grown(*pair) for pair in zip(value, told, strict=True)] if isinstance(value, list | tuple) else told


@pytest.mark.parametrize("name", REPLIES)
def test_unknown_keys_of_a_reply_are_passed_over_and_those_of_a_request_refused(name: str) -> None:
    kind = MESSAGES[name]
    message = kind.model_validate_json((GOLDEN / f"{name}.json").read_text())
    text = json.dumps(grown(message, message.model_dump(mode="json")))
    assert "of_a_newer_release" in text
    read = read_reply(kind, text)
    assert unordered(json.loads(read.model_dump_json())) == unordered(json.loads(message.model_dump_json()))
    with pytest.raises(ValidationError, match="unknown key 'of_a_newer_release'"):
        kind.model_validate_json(text)


@pytest.mark.parametrize("name", ["reward_request", "rubric_request", "pairwise_request"])
def test_a_reward_job_is_a_line_with_its_schema_and_the_json(name: str) -> None:
    text = (GOLDEN / f"{name}.json").read_text()
    payload = encode_reward_request(RewardRequest.model_validate_json(text))
    assert payload == b"reward-request.v1\n" + json.dumps(json.loads(text), separators=(",", ":")).encode()
    assert encode_reward_request(decode_reward_request(payload)) == payload


def test_the_answer_to_a_reward_job_is_a_line_with_its_schema_and_the_json() -> None:
    text = (GOLDEN / "reward_reply.json").read_text()
    payload = b"reward-reply.v1\n" + json.dumps(json.loads(text), separators=(",", ":")).encode()
    assert encode_reward_reply(decode_reward_reply(payload)) == payload


def test_every_golden_file_belongs_to_a_message() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == MESSAGES.keys()
