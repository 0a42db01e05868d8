"""The stages of the demo as data: what is distilled, from which specs, and how its outcome is to be read.

A stage is a folder of the examples with a `teacher`, a `student`, prompts, and one spec an arm.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tutelage_client.errors import InvalidInput
from tutelage_client.spec import RunSpec, load_spec


@dataclass(frozen=True)
class Stage:
    """teacher: the name under which the folder's teacher is served; tag: what the tags of its held-out lines mean."""

    name: str
    title: str
    task: str
    teacher: str
    arms: tuple[str, ...]
    reading: str
    tag: str | None = None


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
STAGES = {stage.name: stage for stage in (SKILL,)}


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
