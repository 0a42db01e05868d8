"""`true` is no 1: wherever a number belongs it is refused in one sentence, and where a truth value belongs it stays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import explain, load_spec, parse_spec
from tutelage_client.wire import ForgetRequest, Generation, Heartbeat, KeyRequest, StepReport
from tutelage_client.wire.completions import CompletionsRequest
from tutelage_client.wire.message import Message, read_reply

SPEC: dict[str, Any] = {
    "name": "walk",
    "student": {"model": "/models/student"},
    "data": {"train": "/data/prompts.jsonl"},
    "objective": {"kind": "constant_penalty"},
}
WHOLE, ANY = "is no whole number; give one such as 3", "is no number; give one such as 0.5"


def kinds_of(message: type[Message] = Message) -> Iterator[type[Message]]:
    for kind in message.__subclasses__():
        yield kind
        yield from kinds_of(kind)


def numbers(kind: type[Message]) -> list[str]:
    """The fields that are numbers, null where they may, by the schema that pydantic makes of it."""
    fields = kind.model_json_schema()["properties"] if kind.model_fields else {}
    types = {name: {each.get("type") for each in field.get("anyOf", [field])} for name, field in fields.items()}
    return [name for name, found in types.items() if found & {"integer", "number"} and "boolean" not in found]


def is_ours(kind: type[Message]) -> bool:
    """Neither one of a test's own, nor one whose fields are not known yet."""
    return kind.__module__.startswith("tutelage") and not kind.__pydantic_generic_metadata__["parameters"]


ASKED = [(kind, name) for kind in {*kinds_of()} if is_ours(kind) for name in numbers(kind)]


def test_no_message_reads_true_as_a_number() -> None:
    assert len(ASKED) > 150
    taken = [(kind.__name__, name) for kind, name in ASKED if not is_refused(kind, name)]
    assert taken == []


def is_refused(kind: type[Message], name: str) -> bool:
    with pytest.raises(ValidationError) as refused:
        kind.model_validate({name: True})
    sentence, field = explain(refused.value)
    return field == name and sentence in (f"{name}: true {WHOLE}", f"{name}: true {ANY}")


@pytest.mark.parametrize(
    ("sections", "field", "said"),
    [
        ({"seed": True}, "seed", f"true {WHOLE}"),
        ({"optim": {"steps": True}}, "optim.steps", f"true {WHOLE}"),
        ({"optim": {"lr": False}}, "optim.lr", f"false {ANY}"),
        ({"student": {"model": "/m", "lora": {"rank": True}}}, "student.lora.rank", f"true {WHOLE}"),
        ({"objective": {"kind": "constant_penalty", "penalty": True}}, "objective.penalty", f"true {ANY}"),
        ({"stabilizers": [{"kind": "signal_clip", "max": True}]}, "stabilizers.0.max", f"true {ANY}"),
        ({"teachers": [{"name": "w", "patience_s": True}]}, "teachers.0.patience_s", f"true {ANY}"),
    ],
)
def test_a_spec_says_where(sections: dict[str, Any], field: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(SPEC | sections)
    assert (refused.value.message, refused.value.field) == (f"{field}: {said}", field)


def test_a_toml_file_says_so_too_and_numbers_of_every_form_stay(tmp_path: Path) -> None:
    named = 'name = "w"\nstudent.model = "s"\ndata.train = "p"\nobjective.kind = "constant_penalty"\n'
    written = f"{named}deterministic = true\n"
    path = tmp_path / "run.toml"
    path.write_text(f"{written}[optim]\nsteps = true\n")
    with pytest.raises(InvalidInput, match=f"optim.steps: true {WHOLE}"):
        load_spec(path)
    path.write_text(f"{written}[optim]\nsteps = 1e3\nlr = 1\n")
    spec = load_spec(path)
    assert (spec.optim.steps, spec.optim.lr, spec.deterministic) == (1000, 1.0, True)
    assert parse_spec(json.loads(spec.model_dump_json())) == spec


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (StepReport, {"metrics": {"loss": 1.0, "lag": True}}, f"metrics.lag: true {ANY}"),
        (Generation, {"text": "a", "finish_reason": "stop", "token_ids": [1, True]}, f"token_ids.1: true {WHOLE}"),
        (KeyRequest, {"name": "k", "scopes": ["runs:read"], "budget_usd": True}, f"budget_usd: true {ANY}"),
        (ForgetRequest, {"days": True}, f"days: true {ANY}"),
        (CompletionsRequest, {"model": "m", "prompt": "p", "logit_bias": {"3": True}}, f"logit_bias.3: true {ANY}"),
    ],
)
def test_a_body_says_where(kind: type[Message], body: dict[str, Any], said: str) -> None:
    for read in (kind.model_validate_json, lambda text: read_reply(kind, text)):
        with pytest.raises(ValidationError) as refused:
            read(json.dumps(body))
        assert explain(refused.value)[0] == said


def test_truth_values_stay_where_they_belong() -> None:
    beat = Heartbeat.model_validate({"epoch": 1, "status": "running", "conditions": {"teacher_available": True}})
    assert beat.conditions == {"teacher_available": True}
    assert ForgetRequest(days=1, files=True).files is True
