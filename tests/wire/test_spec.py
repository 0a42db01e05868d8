"""A run's spec: what is refused, where, and in which words; and what is accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from specs import GOOD, changed, models, nested

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import SOURCES, RolloutSpec, RunSpec, load_spec, parse_spec, required_signals

INF = float("inf")
FINITE = ["optim.lr", "optim.weight_decay", "optim.max_grad_norm", "rollout.temperature", "rollout.top_p"]
FINITE += ["eval.temperature", "budget.wall_clock_s", "budget.teacher_usd"]
EXAMPLES = Path(__file__).parents[2] / "examples" / "skill"


def without_teacher(objective: str, source: str, **more: Any) -> dict[str, Any]:
    data = {} if source == "pushed" else GOOD["data"]
    return GOOD | {"teachers": [], "objective": {"kind": objective}, "rollout": {"source": source}, "data": data} | more


MIXED: dict[str, Any] = {"source": "teacher_mixed", "teacher_share": 0.2}
JUDGE = {"kind": "rubric", "rubric": "good?"}
REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    # an unknown key, at every level
    (changed("objectiv", 1), "objectiv", "did you mean 'objective'?"),
    (changed("zzz", 1), "zzz", "known are "),
    (changed("student.modle", "x"), "student.modle", "did you mean 'model'?"),
    (changed("student.lora.rnk", 4), "student.lora.rnk", "did you mean 'rank'?"),
    (changed("teachers.0.nam", "x"), "teachers.0.nam", "did you mean 'name'?"),
    (changed("teachers.0.url", "http://x"), "teachers.0.url", "known are failover_to, name, on_loss"),
    (changed("data.trian", "x"), "data.trian", "did you mean 'train'?"),
    (changed("data.grader", {"kind": "contains", "ignore": True}), "data.grader.ignore", "did you mean 'ignore_case'?"),
    (changed("data.grader", {"kind": "pattern", "patern": "x"}), "data.grader.patern", "did you mean 'pattern'?"),
    (changed("rollout.temprature", 1.0), "rollout.temprature", "did you mean 'temperature'?"),
    (changed("objective.suport", {}), "objective.suport", "did you mean 'support'?"),
    (changed("objective.support", {"kind": "full", "k": 3}), "objective.support.k", "known are kind"),
    (changed("objective.target", {"kind": "teacher", "knd": 1}), "objective.target.knd", "did you mean 'kind'?"),
    (changed("stabilizers", [{"kind": "signal_clip", "mx": 1}]), "stabilizers.0.mx", "did you mean 'max'?"),
    (changed("optim.learning_rate", 1.0), "optim.learning_rate", "known are "),
    (changed("checkpoint.kep", 1), "checkpoint.kep", "did you mean 'keep'?"),
    (changed("eval.sample", 1), "eval.sample", "did you mean 'samples'?"),
    (changed("budget.teacher_token", 1), "budget.teacher_token", "did you mean 'teacher_tokens'?"),
    # a mixture's place and course
    *(
        (changed("objective.target", {"kind": "mixture"} | given), f"objective.target.{field}", said)
        for given, field, said in (
            ({"weight": 1.0, "stands_for": "student"}, "weight", "holds nothing of the student; give less than 1"),
            (
                {"stands_for": "student", "final_weight": 1.0, "over_steps": 5},
                "weight",
                "holds nothing of the student; give less than 1",
            ),
            ({"stands_for": "reference"}, "stands_for", "'teacher' or 'student'"),
            ({"adaptive": True}, "adaptive", "give a final_weight above weight, and over_steps"),
            (
                {"adaptive": True, "weight": 0.8, "final_weight": 0.4, "over_steps": 5},
                "adaptive",
                "it needs a share that rises",
            ),
            ({"final_weight": 1.0}, "over_steps", "give both or neither"),
        )
    ),
    # a teacher that is cut to a set
    *(
        (
            changed(
                "objective", {"kind": "divergence", "support": {"kind": "teacher_top_k", "rest": "truncate"}} | given
            ),
            "objective.support.rest",
            'is infinite to a truncated teacher; use "tail" or "renormalise", or divergence forward_kl',
        )
        for given in (
            {"divergence": "reverse_kl"},
            {"divergence": "akl"},
            {"divergence": "todi"},
            {"divergence": "jsd", "beta": 1.0},
            {"divergence": "skew_reverse_kl", "alpha": 0.0},
            {"divergence": "alpha", "alpha": -0.5},
        )
    ),
    # a return without the token's own part is no credit of one token
    (
        changed("objective", {"kind": "policy_gradient", "credit": {"kind": "token", "own": False}}),
        "objective.credit.own",
        "unknown key 'own'; known are floor, kind",
    ),
    (
        changed("objective", {"kind": "policy_gradient", "credit": {"kind": "k_step_return", "own": False}}),
        "objective.credit.own",
        "unknown key 'own'",
    ),
    (
        changed(
            "objective",
            {"kind": "policy_gradient", "divergence": "jsd", "credit": {"kind": "return_to_go", "own": False}},
        ),
        "objective.credit",
        'use divergence reverse_kl or credit kind "token"',
    ),
    # an unknown kind
    (changed("objective.kind", "divergenc"), "objective.kind", "did you mean 'divergence'?"),
    (changed("objective.kind", 3), "objective.kind", "unknown kind 3; known are divergence, policy_gradient"),
    (changed("objective.kind", ["divergence"]), "objective.kind", "known are divergence, policy_gradient"),
    (changed("objective", {"knd": "divergence"}), "objective.kind", "the kind is missing; known are divergence"),
    (changed("objective", "divergence"), "objective", "give a table with a kind; known are divergence"),
    (
        changed("objective.target", {"kind": "mix"}),
        "objective.target.kind",
        "known are teacher, mixture, extrapolation",
    ),
    (changed("objective.divergence", "kl"), "objective.divergence", "forward_kl"),
    (changed("objective.support", {"kind": "half"}), "objective.support.kind", "known are full, teacher_top_k,"),
    (changed("rollout.source", "web"), "rollout.source", "student"),
    (changed("optim.schedule", "step"), "optim.schedule", "cosine"),
    (changed("stabilizers", [{"kind": "ratio_clp"}]), "stabilizers.0.kind", "did you mean 'ratio_clip'?"),
    (changed("data.grader", {"kind": "patern"}), "data.grader.kind", "did you mean 'pattern'?"),
    (changed("data.grader", {"kind": "pattern", "pattern": "("}), "data.grader.pattern", "not a regular expression"),
    # missing or malformed
    (changed("name", None), "name", "it is missing"),
    (changed("name", "a b"), "name", "give 1 to 128 letters, digits"),
    (changed("student.model", None), "student.model", "it is missing"),
    (changed("student.model", ""), "student.model", "it has 0 characters; give at least 1"),
    (changed("student.revision", "main"), "student.revision", "give the hash of a commit"),
    (changed("teachers.0.name", "http://x"), "teachers.0.name", "give 1 to 64 letters, digits"),
    (changed("objective", None), "objective", "it is missing"),
    (changed("teachers", [{"name": "a"}, {"name": "b"}]), "teachers.1.tags", "takes all lines"),
    # out of range
    (changed("seed", -1), "seed", "give at least 0"),
    (changed("seed", 2**31), "seed", "give less than 2147483648"),
    *(
        ({**changed(path, value), "deterministic": True}, field, said)
        for path, value, field, said in (
            ("budget.wall_clock_s", 5.0, "budget.wall_clock_s", "a clock does not end two runs at the same step"),
            (
                "reward",
                {"by": {"kind": "rubric", "rubric": "good?"}, "advantage": "batch_normalised"},
                "reward.by",
                "does not judge twice alike",
            ),
        )
    ),
    (changed("rollout.max_lag", 65), "rollout.max_lag", "give at most 64"),
    (changed("rollout.max_lag", -1), "rollout.max_lag", "give at least 0"),
    (
        without_teacher("constant_penalty", "pushed", rollout={"source": "pushed", "max_lag": 1}),
        "rollout.max_lag",
        "1 does not go with rollout.source = 'pushed'; set 0, or a source that is written ahead: student, teacher",
    ),
    (
        changed("rollout", MIXED | {"max_lag": 1}),
        "rollout.max_lag",
        "does not go with rollout.source = 'teacher_mixed'",
    ),
    ({**changed("rollout.max_lag", 1), "deterministic": True}, "rollout.max_lag", "set 0, or set deterministic"),
    (
        {**changed("rollout.sampler", "pool"), "deterministic": True},
        "rollout.sampler",
        "sampled together is a matter of",
    ),
    (changed("rollout.sampler", "a/b"), "rollout.sampler", "give 1 to 64 letters, digits"),
    (
        changed("rollout", {"sampler": "pool", "source": "teacher"}),
        "rollout.sampler",
        "samples whole texts: student, mix",
    ),
    (
        changed("rollout", {"sampler": "pool", "source": "teacher_mixed", "teacher_share": 0.5}),
        "rollout.sampler",
        "has no text to write",
    ),
    # what becomes of the lines of a lost teacher
    *(
        (changed("teachers", [{"name": "toy"} | given]) | more, f"teachers.0{field}", said)
        for given, more, field, said in (
            ({"on_loss": "failover"}, {}, ".failover_to", "give both or neither"),
            ({"failover_to": "other"}, {}, ".failover_to", "give both or neither"),
            ({"on_loss": "failover", "failover_to": "toy"}, {}, ".failover_to", "cannot stand in for itself"),
            ({"on_loss": "failover", "failover_to": "http://x"}, {}, ".failover_to", "give 1 to 64 letters, digits"),
            ({"patience_s": 0}, {}, ".patience_s", "give more than 0"),
            ({"on_loss": "fail", "outage_budget_s": 90}, {}, ".outage_budget_s", "after patience_s; remove it"),
            (
                {"on_loss": "skip", "outage_budget_s": 60},
                {},
                ".outage_budget_s",
                "60 is not above patience_s = 60, so that on_loss never acts; raise it or lower patience_s",
            ),
            *(
                ({"on_loss": on_loss} | stand_in, others, ".on_loss", said)
                for on_loss, stand_in in (("skip", {}), ("failover", {"failover_to": "other"}))
                for others, said in (
                    ({"deterministic": True}, "take pause or fail, or set deterministic = false"),
                    ({"rollout": {"source": "teacher"}}, "whose text is this teacher's own"),
                    ({"rollout": MIXED}, "whose text is this teacher's own"),
                )
            ),
        )
    ),
    (changed("rollout.prompts_per_step", 0), "rollout.prompts_per_step", "give at least 1"),
    (changed("rollout.temperature", 0), "rollout.temperature", "give more than 0"),
    (changed("rollout.top_p", 0), "rollout.top_p", "give more than 0"),
    (changed("objective.support", {"kind": "teacher_top_k", "k": 0}), "objective.support.k", "give at least 1"),
    (changed("optim.steps", 0), "optim.steps", "give at least 1"),
    (changed("optim.betas", [0.9, 1.0]), "optim.betas.1", "give less than 1"),
    (changed("student.lora", {"target_modules": "all"}), "student.lora.target_modules", '"all-linear" or a list'),
    (changed("student.lora", {"target_modules": [1]}), "student.lora.target_modules", '"all-linear" or a list'),
    (changed("student.lora", {"dropout": 1.0}), "student.lora.dropout", "give less than 1"),
    (
        changed("stabilizers", [{"kind": "ratio_clip", "min": 2.0, "max": 1.0}]),
        "stabilizers.0.min",
        "2.0 is not below max",
    ),
    # not finite
    *((changed(path, value), path, "") for path in FINITE for value in (INF, float("nan"))),
    (changed("stabilizers", [{"kind": "signal_clip", "max": INF}]), "stabilizers.0.max", "finite"),
    (changed("objective.beta", float("nan")), "objective.beta", "finite"),
    # combinations
    (changed("objective.target", {"kind": "mixture", "final_weight": 1.0}), "objective.target.over_steps", "both or"),
    (changed("objective.target", {"kind": "mixture", "alpha": 0.999}), "objective.target.alpha", "too near to 1"),
    (
        changed("objective", {"kind": "policy_gradient", "target": {"kind": "mixture"}}),
        "objective.target",
        "needs distributions",
    ),
    (
        changed("objective", {"kind": "divergence", "support": {"kind": "sampled"}, "target": {"kind": "mixture"}}),
        "objective.target",
        "needs distributions",
    ),
    (
        changed(
            "objective",
            {"kind": "divergence", "support": {"kind": "student_top_k"}, "target": {"kind": "extrapolation"}},
        ),
        "objective.target",
        "over the vocabulary",
    ),
    (changed("objective", {"kind": "divergence", "divergence": "tvd", "slope": 1.0}), "objective.slope", '"todi"'),
    (changed("objective", {"kind": "divergence", "divergence": "alpha", "alpha": 1e-9}), "objective.alpha", "too near"),
    (
        changed("objective", {"kind": "divergence", "divergence": "skew_forward_kl", "alpha": 1.5}),
        "objective.alpha",
        "no skew",
    ),
    (
        changed("objective", {"kind": "divergence", "divergence": "akl", "head_mass": 1.0}),
        "objective.head_mass",
        "give less than 1",
    ),
    (changed("objective.beta", 0.5), "objective.beta", 'goes with divergence = "jsd"'),
    (
        changed("objective", {"kind": "divergence", "divergence": "jsd", "support": {"kind": "sampled"}}),
        "objective.support",
        "no sampled-token estimator",
    ),
    (
        changed("objective", {"kind": "policy_gradient", "credit": {"kind": "return_to_go", "discount": 0}}),
        "objective.credit.discount",
        "give more than 0",
    ),
    (
        changed("objective", {"kind": "policy_gradient", "credit": {"kind": "token", "floor": 1}}),
        "objective.credit.floor",
        "give less than 0",
    ),
    (
        changed("objective", {"kind": "policy_gradient", "divergence": "todi"}),
        "objective.divergence",
        "'skew_reverse_kl'",
    ),
    *(
        (
            changed("objective", {"kind": "policy_gradient", "divergence": "jsd", "credit": {"kind": kind}}),
            "objective.credit",
            "use divergence reverse_kl",
        )
        for kind in ("return_to_go", "control_variate")
    ),
    (
        changed("objective", {"kind": "policy_gradient", "divergence": "tvd", "beta": 0.5}),
        "objective.beta",
        'goes with divergence = "jsd"',
    ),
    (
        changed("objective", {"kind": "policy_gradient", "divergence": "tvd", "target": {"kind": "extrapolation"}}),
        "objective.target",
        "use divergence reverse_kl",
    ),
    (
        changed(
            "objective",
            {
                "kind": "divergence",
                "divergence": "forward_kl",
                "support": {"kind": "sampled"},
                "target": {"kind": "extrapolation"},
            },
        ),
        "objective.target",
        "use divergence reverse_kl",
    ),
    (changed("rollout.source", "mix"), "rollout.on_policy_fraction", "give both or neither"),
    (changed("rollout.on_policy_fraction", 0.5), "rollout.on_policy_fraction", "give both or neither"),
    (changed("rollout.source", "teacher_mixed"), "rollout.teacher_share", "give both or neither"),
    (changed("rollout.teacher_share", 0.2), "rollout.teacher_share", "give both or neither"),
    *(
        (changed("rollout", MIXED | {name: 0.9}), f"rollout.{name}", "is 1 where tokens are drawn from a mixture")
        for name in ("temperature", "top_p")
    ),
    *(
        (
            changed("objective", {"kind": "policy_gradient"}) | {"rollout": MIXED} | clips,
            "stabilizers",
            "max 1.25 or more",
        )
        for clips in ({}, {"stabilizers": [{"kind": "ratio_clip", "max": 1.2}]})
    ),
    (changed("rollout.source", "adaptive"), "rollout.adaptive", "give both or neither"),
    (changed("rollout.adaptive", {}), "rollout.adaptive", "give both or neither"),
    (
        changed("rollout", {"source": "adaptive", "adaptive": {"capacity": 31}}),
        "rollout.adaptive.capacity",
        "31 is less than the 32 rollouts of a step",
    ),
    (
        changed("rollout", {"source": "adaptive", "adaptive": {}}) | {"data": {"train": "t.jsonl"}},
        "data.eval",
        "follows the loss on held-out completions",
    ),
    (
        changed("objective", {"kind": "preference"}) | {"rollout": {"source": "paired", "samples_per_prompt": 2}},
        "rollout.samples_per_prompt",
        "make no pair; give 1",
    ),
    *(
        (
            changed("objective", {"kind": "preference"})
            | {"rollout": {"source": "paired"}, "stabilizers": [{"kind": kind} | own]},
            "stabilizers.0",
            "compares whole texts",
        )
        for kind, own in (("signal_clip", {}), ("ratio_clip", {}), ("entropy_gate", {"min": 1.0}))
    ),
    (
        changed("reference", {"model": "other"}),
        "reference",
        "nothing looks at a reference here; remove it, or give a target of kind extrapolation",
    ),
    (
        changed("reference", {"modle": "other"}) | {"stabilizers": [{"kind": "reference_kl"}]},
        "reference.modle",
        "did you mean 'model'?",
    ),
    (changed("teachers", []), "teachers", "needs a teacher; add [[teachers]]"),
    (without_teacher("supervised", "teacher"), "teachers", "needs a teacher; add [[teachers]]"),
    (without_teacher("supervised", "data", teachers=[{"name": "toy"}]), "teachers", "remove [[teachers]]"),
    (changed("data.train", None), "data.train", "needs a JSON-lines file of prompts"),
    (changed("rollout.source", "pushed"), "data.train", "remove it"),
    (GOOD | {"stabilizers": [{"kind": "signal_clip"}] * 2}, "stabilizers.1", "'signal_clip' is there more than once"),
    (
        without_teacher("constant_penalty", "student", stabilizers=[{"kind": "signal_clip"}]),
        "stabilizers.0",
        "'signal_clip' needs",
    ),
    (GOOD | {"stabilizers": [{"kind": "freshness"}]}, "stabilizers.0", "here all is fresh; remove it or set rollout"),
    (GOOD | {"stabilizers": [{"kind": "entropy_gate"}]}, "stabilizers.0.min", "lets everything through"),
    (
        GOOD | {"stabilizers": [{"kind": "entropy_gate", "min": 2.0, "max": 1.0}]},
        "stabilizers.0.min",
        "not below max",
    ),
    (
        without_teacher("supervised", "data", stabilizers=[{"kind": "entropy_gate", "min": 1.0}]),
        "stabilizers.0",
        "'entropy_gate' needs",
    ),
    (
        without_teacher("supervised", "data", stabilizers=[{"kind": "special_token_mask"}, {"kind": "ratio_clip"}]),
        "stabilizers.1",
        "'ratio_clip' needs",
    ),
    *(
        (
            changed("objective.support", {"kind": "sampled"}) | {"rollout": {"source": source} | mix},
            "objective.support",
            "unbiased on student text only",
        )
        for source, mix in (
            ("teacher", {}),
            ("data", {}),
            ("mix", {"on_policy_fraction": 0.5}),
            ("adaptive", {"adaptive": {}}),
            ("teacher_mixed", {"teacher_share": 0.2}),
        )
    ),
]


@pytest.mark.parametrize(("spec", "field", "said"), REFUSED)
def test_a_bad_spec_is_refused_in_one_sentence_with_its_field(spec: Any, field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(spec)
    assert refused.value.field == field
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("spec", [[], "run", 3, None])
def test_what_is_no_table_is_no_spec(spec: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_spec(spec)
    assert refused.value.field is None


MEMBERS = [(place, member) for place, member in models(RunSpec) if "kind" in member.model_fields]


@pytest.mark.parametrize(("place", "member"), MEMBERS, ids=lambda each: getattr(each, "__name__", each))
def test_an_error_inside_a_member_of_a_union_names_fields_only(place: str, member: type[BaseModel]) -> None:
    inside = {"kind": member.model_fields["kind"].default}
    required = {"rubric": "It is right.", "pattern": "x"}
    inside |= {name: value for name, value in required.items() if name in member.model_fields}
    for key in ("kind", "zzz"):
        with pytest.raises(InvalidInput) as refused:
            parse_spec(nested(place, inside | {key: "zzz"}))
        assert refused.value.field == f"{place}.{key}"
    for key in member.model_fields.keys() - {"kind"}:
        with pytest.raises(InvalidInput) as refused:
            parse_spec(nested(place, inside | {key: {"kind": "zzz"}}))
        assert refused.value.field in (f"{place}.{key}", f"{place}.{key}.kind")


def test_every_union_of_the_spec_is_walked() -> None:
    assert {place for place, _ in MEMBERS} == {
        "data.grader",
        "objective",
        "objective.credit",
        "objective.support",
        "objective.target",
        "objective.terms.0.objective",
        "objective.terms.0.objective.credit",
        "objective.terms.0.objective.support",
        "objective.terms.0.objective.target",
        "reward.by",
        "stabilizers.0",
    }
    assert len({member for _, member in MEMBERS}) > 15


@pytest.mark.parametrize("source", get_args(RolloutSpec.model_fields["source"].annotation))
@pytest.mark.parametrize("objective", sorted(SOURCES))
def test_each_objective_takes_its_sources_and_no_other(objective: str, source: str) -> None:
    spec = without_teacher(objective, source)
    if objective == "reward":
        spec["reward"] = {"advantage": "batch_normalised"}
    if objective in ("divergence", "policy_gradient", "preference") or source == "teacher":
        spec["teachers"] = [{"name": "toy"}]
    if source == "mix":
        spec["rollout"] = {"source": "mix", "on_policy_fraction": 0.5}
    if source == "teacher_mixed":
        spec |= {"rollout": MIXED, "stabilizers": [{"kind": "ratio_clip", "max": 1.25}]}
    if source == "adaptive":
        spec |= {"rollout": {"source": "adaptive", "adaptive": {}}, "data": {"train": "t.jsonl", "eval": "e.jsonl"}}
    if source in SOURCES[objective]:
        parsed = parse_spec(spec)
        assert bool(required_signals(parsed)) == parsed.asks_teacher_scores
        assert parse_spec(parsed.model_dump(mode="json")) == parsed
    else:
        with pytest.raises(InvalidInput, match="does not go with objective"):
            parse_spec(spec)


def test_a_gate_on_the_teachers_entropy_asks_for_it_where_no_whole_distribution_brings_it() -> None:
    gate = {"stabilizers": [{"kind": "entropy_gate", "min": 0.5}]}
    sampled = changed("objective.support", {"kind": "sampled"})
    assert required_signals(parse_spec(sampled | gate)) == required_signals(parse_spec(sampled)) | {"entropy"}
    assert required_signals(parse_spec(GOOD | gate)) == required_signals(parse_spec(GOOD))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_the_examples_load_with_paths_beside_them(path: Path) -> None:
    spec = load_spec(path)
    assert spec.student.model == str(EXAMPLES.resolve() / "student")
    assert spec.data.train == str(EXAMPLES.resolve() / "prompts.jsonl")


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.toml")} >= {"control", "opd", "sft"}


@pytest.mark.parametrize(("content", "said"), [(None, "cannot read"), (b"a = ", "not TOML"), (b"\xff", "not TOML")])
def test_a_file_that_is_no_spec_is_refused(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said):
        load_spec(path)


def test_a_reference_is_a_path_beside_the_file_and_goes_with_any_scale(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'name = "r"\nstudent = { model = "s" }\nreference = { model = "before-rl" }\nteachers = [{ name = "toy" }]\n'
        'data = { train = "t.jsonl" }\n'
        'objective = { kind = "policy_gradient", target = { kind = "extrapolation", scale = 1.0 } }'
    )
    spec = load_spec(path)
    assert spec.reference is not None
    assert spec.reference.model == str(tmp_path.resolve() / "before-rl")
    assert not spec.needs_reference
    further = spec.model_dump() | {"objective": {"kind": "policy_gradient", "target": {"kind": "extrapolation"}}}
    assert parse_spec(further).needs_reference


def test_uploaded_files_and_pinned_models_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        f'name = "r"\nstudent = {{ model = "org/model", revision = "{"a" * 40}" }}\n'
        'teachers = [{ name = "toy" }]\ndata = { train = "file:abc", eval = "e.jsonl" }\n'
        'objective = { kind = "divergence" }'
    )
    spec = load_spec(path)
    assert (spec.student.model, spec.data.train) == ("org/model", "file:abc")
    assert spec.data.eval == str(tmp_path.resolve() / "e.jsonl")
