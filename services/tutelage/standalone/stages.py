"""The stages of the demo as data: what is distilled, from which specs, and how its outcome is to be read.

A stage is a folder of the examples with a `teacher`, a `student`, prompts, and one spec an arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, load_spec


@dataclass(frozen=True)
class Stage:
    """teacher: the name under which the folder's teacher is served; tag: what the tags of its held-out lines mean.

    metric: what before and after are, `accuracy` as the runs grade themselves, `reverse_kl` as measured from outside
    models: the folder of `teacher` and `student` as seen from the assets, where they do not come with the checkout
    """

    name: str
    title: str
    task: str
    teacher: str
    arms: tuple[str, ...]
    reading: str
    tag: str | None = None
    metric: Literal["accuracy", "reverse_kl"] = "accuracy"
    models: str | None = None

    def model(self, assets: Path, name: str) -> Path:
        """The directory of the stage's teacher or student.

        Raises:
            InvalidInput: the stage's models have not been made yet.
        """
        folder = assets / (self.models or self.name) / name
        if self.models is not None and not folder.is_dir():
            raise InvalidInput(f"stage {self.name} has no {name} in {folder}; make it with: make demo-{self.name}")
        return folder


SKILL = Stage(
    name="skill",
    title="A student learns to add",
    task="Column addition written out digit by digit, graded exactly on problems that no arm trained on.",
    teacher="adder",
    arms=("opd", "sft", "control"),
    reading=(
        "The task is deterministic and a wrong digit cannot be mended later, so theory does not promise that on-policy "
        "text beats fresh text of the teacher here. What it shows is that a student can be taught on its own words."
    ),
)
HORIZON = Stage(
    name="horizon",
    title="A student learns to find its way",
    task=(
        "Walks on a grid: the prompt names a target, the student writes moves and stops, right if it stands there. "
        "Every arm trains on targets up to 16 moves away and is graded up to 22."
    ),
    teacher="walker",
    arms=("opd", "sft", "token_kd"),
    reading=(
        "A student that strays is in a state that the teacher's own text never visits; trained on its own text it was "
        "shown the way back. Over five seeds that pays beyond the trained distances where the student samples; one "
        "seed cannot tell: see docs/results/horizon.md."
    ),
    tag="distance of the target in moves",
)
LANGUAGE = Stage(
    name="language",
    title="A shortened language model learns to speak again",
    task=(
        "The student is the teacher, SmolLM2-135M-Instruct, without seven of its thirty layers. Every arm may use the "
        "same number of teacher tokens; what the student then writes to held-out prompts is measured from outside."
    ),
    teacher="smollm2",
    arms=("opd", "token_kd", "sft"),
    reading=(
        "opd learns on the student's own text, token_kd and sft on the teacher's: the first three figures are measured "
        "on the ground of the one, the fourth on that of the others. A student that is used writes its own text, hence "
        "the stage's metric. KL figures are exact over the whole vocabulary. Read the variety beside them: reverse KL "
        "can also be lowered by saying less."
    ),
    metric="reverse_kl",
    models="../build/language",
)
STAGES = {stage.name: stage for stage in (SKILL, HORIZON, LANGUAGE)}
# What runs unless a stage is named: those whose models come with the checkout.
DEFAULT = [name for name, stage in STAGES.items() if stage.models is None]


def specs(stage: Stage, assets: Path) -> list[RunSpec]:
    """The stage's specs in the order of its arms.

    Raises:
        InvalidInput: the assets are not there.
    """
    folder = assets / stage.name
    for arm in stage.arms:
        if not (folder / f"{arm}.toml").is_file():
            raise InvalidInput(
                f"the demo needs the checkout's examples; there is no {folder}/{arm}.toml, give --assets"
            )
    return [load_spec(folder / f"{arm}.toml") for arm in stage.arms]
