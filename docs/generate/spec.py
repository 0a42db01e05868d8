"""docs/reference/spec.md: every key of a run's spec, and what does not go together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

from docs.generate.markdown import Schema, code, fields, prose, table
from pydantic import BaseModel

from tutelage_client.spec import (
    SOURCES,
    Budget,
    CheckpointSpec,
    Credit,
    Data,
    Diagnostics,
    EvalSpec,
    Lora,
    Objective,
    Optim,
    Reference,
    RewardSpec,
    RolloutSpec,
    RunSpec,
    Stabilizer,
    Student,
    Support,
    Target,
    TeacherRef,
    Term,
    Where,
)
from tutelage_client.spec.supports import SUPPORT_SIGNALS
from tutelage_client.wire import Grader

HEAD = ("key", "type", "default", "limits", "meaning")
INTRO = """# The run spec

A run is a file: TOML by hand, JSON over HTTP. Relative paths in a TOML file are relative to the file. An unknown key is
refused with the nearest known one. p is the student, q the teacher, mu the policy that wrote the text, ref the student
as it was at the start, or the model in `[reference]`. [Which settings for which goal](../howto/objectives.md).
"""
SECTIONS: Sequence[tuple[str, type[BaseModel]]] = (
    ("[student]", Student),
    ("[student.lora]", Lora),
    ("[reference]", Reference),
    ("[[teachers]]", TeacherRef),
    ("[data]", Data),
    ("[rollout]", RolloutSpec),
    ("[reward]", RewardSpec),
    ("[[objective.terms]]", Term),
    ("[objective.terms.where]", Where),
    ("[optim]", Optim),
    ("[checkpoint]", CheckpointSpec),
    ("[eval]", EvalSpec),
    ("[diagnostics]", Diagnostics),
    ("[budget]", Budget),
)
CHOICES: Sequence[tuple[str, Any]] = (
    ("[objective]", Objective),
    ("objective.support", Support),
    ("objective.target", Target),
    ("objective.credit", Credit),
    ("[[stabilizers]]", Stabilizer),
    ("data.grader", Grader),
)
PRESET = """### `kind = "preset"`

A method by its [name](../algorithms.md). Its composition takes the preset's place, in `objective`, `rollout`,
`reward` and `stabilizers`, when the spec is read; the stored spec names no preset. Numbers of yours replace the
method's, so does a judge's rubric, and what it leaves open is yours. Refused are a word that contradicts one which the
method fixes, a method that is not built, and an unknown name.

| key | type | default | limits | meaning |
|---|---|---|---|---|
| `name` | string | required | a method that is built | as `tutelage methods ls` lists it |
| any key of the method's objective |  |  |  | replaces the method's number |
"""
RULES = """## What goes together

- A teacher is named exactly if one is asked: by the objective, or by source `teacher` or `teacher_mixed`.
- `data.train` is named exactly if it is read: with every source but `pushed`.
- `rollout.on_policy_fraction` goes with `source = "mix"`, and only with it.
- `rollout.teacher_share` goes with `source = "teacher_mixed"`, and only with it; `temperature` and `top_p` are 1 there,
  and a policy gradient needs `ratio_clip` with a `max` of at least 1 / (1 - teacher_share).
- `rollout.adaptive` goes with `source = "adaptive"`, and only with it; its buffer holds at least a step's rollouts, and
  `data.eval` is named, with a completion on each line.
- `preference` compares the completion of the data with one text of the student: source `paired`,
  `samples_per_prompt` 1; no clip, no gate, and as a term of a sum no `where`.
- Each divergence has at most one parameter: `beta` (jsd), `alpha` (alpha, skewed), `head_mass` (akl), `slope` (todi).
- Target `mixture` needs distributions (support `full` or a top-k); `extrapolation` support `full` or `sampled`.
- Support `sampled` has the two KL divergences alone.
- In a policy gradient a return and target `extrapolation` go with divergence `reverse_kl`.
- Support `sampled` needs text of the student: source `student` or `pushed`.
- The terms of a `sum` are no sums, rewards or presets. Their supports have one `k`, since the teacher is asked once; at
  most one has a return; some term acts at every step. A term whose `where.text` is set learns from `mix`, `paired`,
  `adaptive` or `pushed` if its kind can learn from that text, which with `adaptive` may be old.
- `[reward]` goes with objective kind `reward`, which needs it, `divergence`, `policy_gradient` or `sum`, on text of the
  student (source `student` or `pushed`) or of both (`paired`). Group advantages and pairwise rewards need two texts of
  a prompt.
- `reward.teacher_share` goes with objective kind `reward` alone.
- `signal_clip` and `entropy_gate` need an objective that hears a teacher; `ratio_clip` needs source `student`,
  `teacher_mixed`, `mix`, `paired`, `adaptive` or `pushed`.
- Each kind of stabilizer is there once.
- `[reference]` goes with target `extrapolation` or stabilizer `reference_kl`; at scale 1 nothing looks at it.
- Student, teacher and reference share a tokenizer; prompt and completion fit all contexts. The trainer checks that,
  with the data, before the first rollout.
"""


def spec_page() -> str:
    parts = [INTRO]
    for title, model in (("Top level", RunSpec), *SECTIONS):
        parts += [
            f"## {code(title) if '[' in title else title}\n",
            prose(model.__doc__) + "\n",
            table(HEAD, _linked(model.model_json_schema())),
        ]
    for title, union in CHOICES:
        parts += [f"## `{title}`\n", "One of several kinds, told apart by `kind`.\n", *_kinds(union)]
        if union is Objective:
            parts.append(PRESET)
    parts += [_sources(), _signals(), RULES]
    return "\n".join(part for part in parts if part)


def _linked(schema: Schema) -> list[list[str]]:
    """The rows of a table, in which a type that has a section of its own leads there."""
    sections = {model.__name__: title for title, model in SECTIONS}
    for title, union in CHOICES:
        sections |= {model.__name__: title for model in _members(union)}
    rows = fields(schema)
    for row in rows:
        for title in {sections[name] for name in re.findall(r"\w+", row[1]) if name in sections}:
            row[1] = f"[{title.strip('[]')}](#{re.sub(r'[^a-z]', '', title)})"
    return rows


def _members(union: Any) -> tuple[type[BaseModel], ...]:
    return get_args(get_args(union)[0]) if get_args(union) else (union,)


def _kinds(union: Any) -> list[str]:
    parts = []
    for model in _members(union):
        schema = model.model_json_schema()
        parts += [f'### `kind = "{schema["properties"]["kind"]["default"]}"`\n', prose(model.__doc__) + "\n"]
        parts.append(table(HEAD, fields(schema, skip=("kind",))))
    return parts


def _sources() -> str:
    names = dict.fromkeys(name for able in SOURCES.values() for name in able)
    rows = [[code(kind), *("yes" if name in able else "" for name in names)] for kind, able in SOURCES.items()]
    return "## Which objective learns from which text\n\n" + table(("objective", *map(code, names)), rows)


def _signals() -> str:
    rows = [[code(kind), ", ".join(map(code, sorted(signals)))] for kind, signals in SUPPORT_SIGNALS.items()]
    return "## What a support asks of the teacher\n\n" + table(("support", "signals"), rows)
