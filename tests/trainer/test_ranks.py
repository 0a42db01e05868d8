"""Two ranks of one student learn, write and save what one process does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from two_ranks import at_work
from whole_runs import SAMPLED

from tutelage.core.batch import OutputHead
from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.trainer import saving
from tutelage.trainer.build import output_head
from tutelage.trainer.collate import Unit
from tutelage.trainer.crew import Crew
from tutelage.trainer.learning import Metrics
from tutelage.trainer.loading import load_student
from tutelage.trainer.marking import Scored
from tutelage.trainer.member import divided
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.world import ALONE, World
from tutelage.trainer.writer import Writer
from tutelage_client.spec import RunSpec
from tutelage_client.wire import Rollout, TokenScores

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
STEPS = 3
FULL = {"kind": "divergence", "divergence": "reverse_kl", "support": {"kind": "full"}}
ANCHOR = [{"kind": "reference_kl", "coef": 1.0}]
PROMPTS = [[2, 3], [2, 3], [4, 5, 6], [7], [8, 9]]


@dataclass(frozen=True)
class Task:
    """What a student is put to: steps of units, then text; `folder` is where it is saved, `taken` where it begins."""

    model: Path
    spec: RunSpec
    steps: list[list[Unit]]
    heads: dict[str | None, OutputHead]
    folder: Path
    taken: Path | None = None


@dataclass
class Done:
    """What came of it.

    told: the metrics of each step; text: what was written before and after the writer took the last weights up
    """

    told: list[Metrics]
    weights: dict[str, Tensor]
    text: list[dict[int, list[int]]]


def done_by(world: World, task: Task) -> Done:
    """The task, by one process or by all ranks."""
    student = world.load(task.model, task.spec)
    student.hear_through(task.heads)
    if task.taken is not None:
        saving.read(student, task.taken, STEPS)
    objective = objective_of(task.spec, student)
    writer = world.writer(student, objective)
    told = [student.learn_units(units, objective) for units in task.steps]
    text = [written(writer)]
    writer.follow()
    text.append(written(writer))
    task.folder.mkdir()
    saving.write(student, task.folder)
    return Done(told, {name: p.detach().clone() for name, p in student.trained.items()}, text)


def written(writer: Writer) -> dict[int, list[int]]:
    """Token ids by prompt."""
    rows = writer.sample(PROMPTS, writer.spec.rollout, torch.Generator().manual_seed(7))
    return {row.index: row.token_ids for row in rows}


def by_ranks(crew: Crew, tasks: list[Task]) -> list[Done]:
    """Rank 0's side of several tasks, one after the other."""
    return [done_by(crew, task) for task in tasks]


def hidden(rollout: Rollout, seed: int) -> TokenScores:
    """Hidden states of no teacher in particular."""
    rows = len(rollout.completion_ids)
    states = np.random.default_rng(seed).normal(size=(rows, 8)).astype(np.float32)
    return TokenScores(start=len(rollout.prompt_ids), valid=np.ones(rows, dtype=bool), hidden=states)


@pytest.fixture(scope="module")
def tasks(
    tmp_path_factory: Any, model_dir: Path, make_spec: Any, tokenizer: Any, random_rollouts: Any, random_scores: Any
) -> dict[str, Task]:
    """By name: text that a teacher marked, of lengths that two ranks cannot share evenly."""
    folder = tmp_path_factory.mktemp("tasks")
    tied = load_student(model_dir, make_spec()).model
    tied.lm_head.weight, tied.config.tie_word_embeddings = tied.get_input_embeddings().weight, True
    tied.save_pretrained(folder / "tied")
    tokenizer.save_pretrained(folder / "tied")
    engine = FakeEngine(FakeOptions(), "toy")
    heads: dict[str | None, OutputHead] = {"toy": output_head(engine.head(), load_student(model_dir, make_spec()))}

    def steps(mark: Callable[[Rollout, int], TokenScores | None], count: int = 11) -> list[list[Unit]]:
        written = [enumerate(random_rollouts(count, seed)) for seed in range(STEPS)]
        return [[(Scored(r, mark(r, i), teacher="toy"),) for i, r in step] for step in written]

    def task(name: str, steps: list[list[Unit]], *objective: Any, model: Path = model_dir, **own: Any) -> Task:
        cut = {"rollout": {"max_new_tokens": 8}, "optim": {"micro_batch_tokens": 40}}
        return Task(model, make_spec(*objective, **(cut | own)), steps, heads, folder / name)

    sampled = steps(lambda r, i: random_scores(r, i, unscored=[0] if i % 3 == 0 else []))
    lora: dict[str, Any] = {"student": {"lora": {"rank": 4}}}
    return {
        "sampled": task("sampled", sampled, SAMPLED),
        "fused": task("fused", steps(hidden), FULL),
        "tied": task("tied-ranks", sampled, SAMPLED, model=folder / "tied"),
        "anchored": task("anchored", sampled, SAMPLED, stabilizers=ANCHOR),
        "adapters": task("adapters", sampled, SAMPLED, stabilizers=ANCHOR, **lora),
        "beside": task("beside", sampled, SAMPLED, rollout={"max_new_tokens": 8, "max_lag": 1}),
        "one text": task("one", steps(lambda *_: None, count=1)),
        "no text": task("none", [[]]),
    }


@pytest.fixture(scope="module")
def both(tasks: dict[str, Task], tmp_path_factory: Any) -> dict[str, tuple[Done, Done]]:
    """What one process and two ranks make of each; in the end each begins where the other ended, with one more step."""
    folder = tmp_path_factory.mktemp("both")
    alone = {name: done_by(ALONE, replace(task, folder=folder / name)) for name, task in tasks.items()}
    again = {
        f"{name}, resumed": replace(
            tasks[name], steps=tasks[name].steps[:1], taken=folder / name, folder=folder / f"{name}-2"
        )
        for name in ("fused", "tied", "adapters")
    }
    every = tasks | again
    ranks = dict(zip(every, at_work(by_ranks, list(every.values()), folder / "log"), strict=True))
    for name, task in again.items():
        begun = tasks[name.partition(",")[0]].folder
        alone[name] = done_by(ALONE, replace(task, taken=begun, folder=folder / f"{name}-1"))
    return {name: (alone[name], ranks[name]) for name in every}


def assert_close(one: dict[str, Any], other: dict[str, Any], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            other[name], value, rtol=1e-4, atol=atol, msg=lambda said, name=name: f"{name}: {said}"
        )


NAMES = ["sampled", "fused", "tied", "anchored", "adapters", "beside", "one text", "no text"]
RESUMED = ["fused, resumed", "tied, resumed", "adapters, resumed"]


@pytest.mark.parametrize("name", NAMES + RESUMED)
def test_two_ranks_learn_what_one_process_does(name: str, both: dict[str, tuple[Done, Done]]) -> None:
    one, other = both[name]
    assert_close(one.weights, other.weights, atol=1e-4)
    for told, found in zip(one.told, other.told, strict=True):
        known = {key: value for key, value in told.items() if value is not None}
        assert {key for key, value in found.items() if value is None} == told.keys() - known.keys()
        assert {key: found[key] for key in known} == pytest.approx(known, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_write_what_one_process_does(name: str, both: dict[str, tuple[Done, Done]]) -> None:
    one, other = both[name]
    assert [sorted(text) for text in other.text] == [list(range(len(PROMPTS)))] * 2
    assert other.text == one.text
    assert (other.text[0] != other.text[1]) == (name == "beside"), "a copy that writes beside has older weights"


@pytest.mark.parametrize("name", ["sampled", "tied", "adapters"])
def test_one_process_reads_the_moments_of_two_ranks(name: str, tasks: dict[str, Task], both: dict[str, Any]) -> None:
    """Weights and moments, of what each rank kept alone; the gradient of the mean is in the first moment."""
    task = tasks[name]
    files = sorted(path.name for path in (task.folder / "optimizer").iterdir())
    assert len(files) == 2
    assert not (task.folder / "optimizer.safetensors").exists()
    student = load_student(task.model, task.spec)
    saving.read(student, task.folder, STEPS)
    assert_close(student.trained, both[name][1].weights, atol=0.0)
    alone = load_student(task.model, task.spec)
    for units in task.steps:
        alone.learn_units(units, objective_of(task.spec, alone))
    assert_close(alone.optimizer.tensors(), student.optimizer.tensors(), atol=1e-5)


def test_the_text_of_a_step_is_divided_evenly_and_batches_are_as_many(random_rollouts: Any) -> None:
    units: list[Unit] = [(Scored(each, None),) for each in random_rollouts(9)]
    shares = divided(units, 2, max_tokens=24)
    assert len({len(share) for share in shares}) == 1
    learned = [s.rollout.id for share in shares for batch in share for s in batch if s.rollout.mask.any()]
    assert sorted(learned) == sorted(unit[0].rollout.id for unit in units)
    assert divided([], 2, max_tokens=24) == [[], []]
