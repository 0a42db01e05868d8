"""What a run must be to be taken, and that it is taken once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tutelage.coordinator import runs
from tutelage.coordinator.db import Database
from tutelage.coordinator.settings import Settings
from tutelage_client.coordinator import CoordinatorClient
from tutelage_client.errors import ProblemResponse
from tutelage_client.spec import parse_spec, required_signals
from tutelage_client.wire import RunStatus, Signal, TeacherInfo

Spec = Callable[..., dict[str, Any]]
FULL, TOP = {"kind": "full"}, {"kind": "teacher_top_k", "k": 9}

REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a key that is not known": ({"studnet": {}}, "invalid_input", "studnet"),
    "a name with a space": ({"name": "a b"}, "invalid_input", "name"),
    "an impossible combination": (
        {"objective": {"kind": "policy_gradient"}, "rollout": {"source": "data"}},
        "invalid_input",
        "rollout.source",
    ),
    "a teacher that nobody asks": (
        {"objective": {"kind": "supervised"}, "rollout": {"source": "data"}, "teachers": [{"name": "toy"}]},
        "invalid_input",
        "teachers",
    ),
    "a kind that is not known": ({"objective": {"kind": "divergance"}}, "invalid_input", "objective.kind"),
    "a preset that is not built": ({"objective": {"kind": "preset", "name": "tip"}}, "invalid_input", "objective.name"),
    "a key of a grader": (
        {"data": {"train": "/t", "grader": {"kind": "pattern", "patern": "x"}}},
        "invalid_input",
        "data.grader.patern",
    ),
    "a file that is not uploaded": ({"data": {"train": "file:file-0"}}, "unknown_file", "data.train"),
    "an evaluation file that is not uploaded": (
        {"data": {"train": "/t", "eval": "file:file-0"}},
        "unknown_file",
        "data.eval",
    ),
    "a student that is not uploaded": ({"student": {"model": "file:file-0"}}, "unknown_file", "student.model"),
    "a reference that is not uploaded": (
        {"reference": {"model": "file:file-0"}, "stabilizers": [{"kind": "reference_kl"}]},
        "unknown_file",
        "reference.model",
    ),
    "a relative path": ({"data": {"train": "prompts.jsonl"}}, "invalid_input", "data.train"),
    "a hub id without a revision": ({"student": {"model": "org/model"}}, "invalid_input", "student.model"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_run_that_cannot_work_is_refused_with_its_field(case: str, http: httpx2.AsyncClient, spec: Spec):
    sections, code, field = REFUSED[case]
    answer = await http.post("/v1/runs", json=spec(**sections))
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in problem["detail"]
    assert problem["field"] == field and "\n" not in problem["detail"]
    assert (await http.get("/v1/runs")).json() == {"data": [], "next": None}


async def test_a_preset_is_stored_as_its_composition(http: httpx2.AsyncClient, spec: Spec):
    answer = await http.post("/v1/runs", json=spec(objective={"kind": "preset", "name": "constant-penalty"}))
    assert answer.status_code == 201, answer.text
    stored = (await http.get(f"/v1/runs/{answer.json()['id']}")).json()["spec"]
    assert (stored["objective"]["kind"], stored["rollout"]["source"]) == ("constant_penalty", "student")
    assert "preset" not in str(stored)


async def test_a_body_that_is_not_an_object_is_refused(http: httpx2.AsyncClient):
    for body in (b"[1]", b"nonsense", b""):
        answer = await http.post("/v1/runs", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_an_unknown_teacher_is_refused_with_the_known_names(
    coordinator: CoordinatorClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    for name in ("big", "small"):
        await coordinator.register_teacher(name, "http://127.0.0.1:9", teacher_info(name))
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.submit(taught())
    assert (refused.value.status, refused.value.code) == (422, "unknown_teacher")
    assert refused.value.field == "teachers.0.name"
    assert "'walker'" in refused.value.detail and "big, small" in refused.value.detail


async def test_a_stand_in_must_be_known_and_able_to_do_what_the_run_asks(
    coordinator: CoordinatorClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    wanted = taught() | {"teachers": [{"name": "walker", "on_loss": "failover", "failover_to": "spare"}]}
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    with pytest.raises(ProblemResponse, match="there is no teacher 'spare'") as unknown:
        await coordinator.submit(wanted)
    assert (unknown.value.code, unknown.value.field) == ("unknown_teacher", "teachers.0.failover_to")
    await coordinator.register_teacher("spare", "http://127.0.0.1:9", teacher_info("spare", signals=["sampled"]))
    with pytest.raises(ProblemResponse, match=r"teacher 'spare' .* cannot return hidden") as unable:
        await coordinator.submit(wanted)
    assert unable.value.code == "capability_missing"
    await coordinator.register_teacher("spare", "http://127.0.0.1:9", teacher_info("spare"))
    run = await coordinator.submit(wanted)
    with pytest.raises(ProblemResponse, match=f"{run.id}, which is queued, asks teacher 'spare'"):
        await coordinator.remove_teacher("spare")


# capabilities of the teacher, the objective, other sections, the field that is refused, and what would work
UNABLE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str, str]] = {
    "no hidden states for the full vocabulary": (
        {"signals": ["sampled", "top_k"]},
        {"support": FULL},
        {},
        "objective.support",
        "its signals are sampled, top_k, with which kind teacher_top_k or sampled works",
    ),
    "written tokens alone for the full vocabulary": (
        {"signals": ["sampled"]},
        {},
        {},
        "objective.support",
        "cannot return hidden; its signals are sampled, with which kind sampled works",
    ),
    "written tokens alone for what has no estimator on them": (
        {"signals": ["sampled"]},
        {"divergence": "jsd"},
        {},
        "objective.support",
        "cannot return hidden; its signals are sampled, so take another teacher",
    ),
    "no candidates for the student's top-k": (
        {"signals": ["sampled"]},
        {"support": {"kind": "student_top_k", "k": 4}},
        {},
        "objective.support",
        "cannot return candidates; its signals are sampled, with which kind sampled works",
    ),
    "no hidden states for a baseline": (
        {"signals": ["sampled"]},
        {"kind": "policy_gradient", "credit": {"kind": "control_variate"}},
        {},
        "objective.credit",
        "with which kind token or return_to_go or k_step_return works",
    ),
    "no entropy for a gate": (
        {"signals": ["sampled"]},
        {"kind": "policy_gradient"},
        {"stabilizers": [{"kind": "entropy_gate", "min": 1.0}]},
        "stabilizers.0",
        "cannot return entropy; its signals are sampled, so take another teacher",
    ),
    "no top-k for a term": (
        {"signals": ["sampled"]},
        {
            "kind": "sum",
            "terms": [
                {"objective": {"kind": "policy_gradient"}},
                {"objective": {"kind": "divergence", "divergence": "forward_kl", "support": TOP}},
            ],
        },
        {},
        "objective.terms.1.objective.support",
        "with which kind sampled works",
    ),
    "no entropy for the tokens of a term": (
        {"signals": ["sampled"]},
        {
            "kind": "sum",
            "terms": [{"objective": {"kind": "policy_gradient"}, "where": {"teacher_entropy_above": 1.0}}],
        },
        {},
        "objective.terms.0.where",
        "cannot return entropy",
    ),
    "no log q for the ratio of a reward": (
        {"signals": ["entropy"]},
        {"kind": "reward"},
        {"reward": {"advantage": "batch_normalised", "teacher_share": 0.5}},
        "reward.teacher_share",
        "cannot return sampled",
    ),
    "more than the teacher's top-k": ({}, {"support": TOP}, {}, "objective.support.k", "9 is above 8"),
    "more than the vocabulary": (
        {"vocabulary_size": 4},
        {"support": {"kind": "student_top_k", "k": 5}},
        {},
        "objective.support.k",
        "5 is above 4",
    ),
    "a teacher that does not write": (
        {"generates": False},
        {},
        {"rollout": {"source": "teacher"}},
        "rollout.source",
        "use another source or teacher",
    ),
    "a teacher that does not write its share": (
        {"generates": False},
        {},
        {"rollout": {"source": "teacher_mixed", "teacher_share": 0.2}},
        "rollout.source",
        "use another source or teacher",
    ),
    "no log q of what was written": (
        {"signals": ["hidden"]},
        {},
        {"rollout": {"source": "teacher_mixed", "teacher_share": 0.2}},
        "rollout.source",
        "cannot return sampled",
    ),
    "no room for a prompt": (
        {"max_length": 64},
        {},
        {"rollout": {"max_new_tokens": 64}},
        "rollout.max_new_tokens",
        "leaves no room for a prompt in 64 tokens",
    ),
    "other text each time for a run that repeats": (
        {"writes_by_seed": False},
        {},
        {"rollout": {"source": "teacher"}, "deterministic": True},
        "deterministic",
        "does not write the same text twice, whatever the seed",
    ),
}


@pytest.mark.parametrize("case", UNABLE)
async def test_what_the_teacher_cannot_do_is_refused(
    case: str, coordinator: CoordinatorClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    capabilities, objective, sections, field, said = UNABLE[case]
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info(**capabilities))
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.submit(taught(objective, **sections))
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "capability_missing", field)
    assert "walker" in refused.value.detail and said in refused.value.detail and "\n" not in refused.value.detail


async def test_of_several_teachers_the_one_that_cannot_is_named(
    coordinator: CoordinatorClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", teacher_info())
    unable = teacher_info("adder", signals=frozenset({Signal.SAMPLED}))
    await coordinator.register_teacher("adder", "http://127.0.0.1:9", unable)
    spec = taught() | {"teachers": [{"name": "walker"}, {"name": "adder", "tags": ["sum"]}]}
    with pytest.raises(ProblemResponse) as refused:
        await coordinator.submit(spec)
    assert (refused.value.status, refused.value.code) == (422, "capability_missing")
    assert "teacher 'adder' (teachers.1) cannot return hidden" in refused.value.detail


SIGNALS: dict[str, tuple[dict[str, Any], set[Signal]]] = {
    "full": ({"kind": "divergence"}, {Signal.HIDDEN}),
    "teacher_top_k": ({"kind": "divergence", "support": {"kind": "teacher_top_k"}}, {Signal.SAMPLED, Signal.TOP_K}),
    "student_top_k": (
        {"kind": "divergence", "support": {"kind": "student_top_k"}},
        {Signal.SAMPLED, Signal.CANDIDATES},
    ),
    "sampled": ({"kind": "divergence", "support": {"kind": "sampled"}}, {Signal.SAMPLED}),
    "policy_gradient": ({"kind": "policy_gradient"}, {Signal.SAMPLED}),
}


@pytest.mark.parametrize("case", SIGNALS)
async def test_a_teacher_with_just_the_required_signals_is_enough(
    case: str, coordinator: CoordinatorClient, taught: Spec, teacher_info: Callable[..., TeacherInfo]
):
    objective, signals = SIGNALS[case]
    spec = taught(objective)
    assert required_signals(parse_spec(spec)) == signals
    info = teacher_info(signals=frozenset(signals), max_top_k=16)
    await coordinator.register_teacher("walker", "http://127.0.0.1:9", info)
    run = await coordinator.submit(spec)
    assert (run.status, run.step, run.epoch) == (RunStatus.QUEUED, 0, 0)


async def test_an_uploaded_file_may_be_named(coordinator: CoordinatorClient, spec: Spec):
    file = await coordinator.upload(b'{"prompt": "1+1="}\n', "prompts.jsonl")
    run = await coordinator.submit(spec(data={"train": f"file:{file.id}"}))
    assert run.spec["data"]["train"] == f"file:{file.id}"


async def test_the_same_key_and_body_give_the_same_run(http: httpx2.AsyncClient, spec: Spec):
    headers = {"Idempotency-Key": "k1"}
    first = await http.post("/v1/runs", json=spec(), headers=headers)
    again = await http.post("/v1/runs", json=spec(), headers=headers)
    other = await http.post("/v1/runs", json=spec(seed=1), headers=headers)
    unkeyed = await http.post("/v1/runs", json=spec())
    assert (first.status_code, again.status_code, unkeyed.status_code) == (201, 200, 201)
    assert first.json() == again.json()
    assert first.json()["id"] != unkeyed.json()["id"]
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


def test_the_same_key_at_the_same_moment_makes_one_run(database: Database, spec: Spec):
    def submit(_: int) -> str:
        with database.write() as session:
            return runs.submit(session, spec(), "one")[0].id

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(submit, range(12)))) == 1


async def test_lists_are_walked_by_cursor_without_gap_or_repeat(coordinator: CoordinatorClient, spec: Spec):
    made = [(await coordinator.submit(spec(name=f"r{i}"))).id for i in range(5)]
    page = await coordinator.runs(limit=2)
    walked = [run.id for run in page.data]
    await coordinator.submit(spec(name="later"))
    while page.next is not None:
        page = await coordinator.runs(limit=2, after=page.next)
        walked += [run.id for run in page.data]
    assert walked == made[::-1]


async def test_runs_are_listed_by_status(coordinator: CoordinatorClient, spec: Spec):
    kept, dropped = await coordinator.submit(spec()), await coordinator.submit(spec())
    await coordinator.cancel(dropped.id)
    assert [run.id for run in (await coordinator.runs(status=RunStatus.QUEUED)).data] == [kept.id]
    assert [run.id for run in (await coordinator.runs(status=RunStatus.CANCELLED)).data] == [dropped.id]


@pytest.mark.parametrize("query", ["after=nonsense", "after=x~run-1", "limit=0", "limit=many", "status=lost"])
async def test_a_bad_list_parameter_is_refused(query: str, http: httpx2.AsyncClient):
    answer = await http.get(f"/v1/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert query.partition("=")[0] in answer.json()["detail"]


UNKNOWN = ["", "/events", "/metrics", "/checkpoints", "/rollouts", "/model"]


@pytest.mark.parametrize("what", UNKNOWN)
async def test_an_unknown_run_is_not_found(what: str, http: httpx2.AsyncClient):
    answer = await http.get(f"/v1/runs/run-0{what}")
    assert (answer.status_code, answer.json()["code"]) == (404, "run_not_found")
    stream = await http.get("/v1/runs/run-0/events", headers={"Accept": "text/event-stream"})
    assert stream.status_code == 404


async def test_no_spec_names_what_is_the_coordinators_own(
    coordinator: CoordinatorClient, spec: Callable[..., dict[str, Any]], settings: Settings, tmp_path: Path
):
    """Where no key is asked for any other path will do, as whoever asks can read it anyway."""
    (tmp_path / "link").symlink_to(settings.data_dir)
    for path in (settings.data_dir / "files" / "0", tmp_path / "link" / "artefacts"):
        with pytest.raises(ProblemResponse, match=r"student\.model: .*own folder.*file:ID.*fork"):
            await coordinator.submit(spec(student={"model": str(path)}))
    with pytest.raises(ProblemResponse, match="NUL"):
        await coordinator.submit(spec(student={"model": "/a\0b"}))
    await coordinator.submit(spec(student={"model": str(tmp_path)}))
