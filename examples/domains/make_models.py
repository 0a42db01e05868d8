"""Make two domains with a teacher each and one student: `python examples/domains/make_models.py --out FOLDER`.

Both domains are written in the characters of examples/skill. `sum` is its column addition, whose teacher is there
already. `column` adds digit by digit from the right without any carry,

    47,85:7+5=2;4+8=2>22

and its teacher is made here: that of `sum`, trained on nothing but this until it has it. The student is that of `sum`,
trained on both for a moment: that is the cold start. A second one, `wide`, is larger and begins from nothing. Seeds are
fixed: the same torch on the same kind of processor writes the same files.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))

from examples.skill.make_models import CHARACTERS, MAX_DIGITS, Problem, loss, problems
from examples.small_models import Recipe, completions, make_model, make_tokenizer, train

SKILL = Path(__file__).parents[1] / "skill"
TEACHER = Recipe(hidden_size=96, layers=3, steps=800, schedule=800, lr=1.5e-3, seed=11)
STUDENT = Recipe(hidden_size=64, layers=2, steps=300, schedule=900, lr=2e-3, seed=12)
WIDE = Recipe(hidden_size=128, layers=3, steps=300, schedule=900, lr=2e-3, seed=12)
HELD_OUT, PROMPTS = 128, 2048


class Columns(NamedTuple):
    """A problem of the domain `column`: both terms have the same number of digits."""

    a: str
    b: str

    @property
    def prompt(self) -> str:
        return f"{self.a},{self.b}:"

    @property
    def answer(self) -> str:
        return "".join(str((int(x) + int(y)) % 10) for x, y in zip(self.a, self.b, strict=True))

    @property
    def completion(self) -> str:
        columns = zip(reversed(self.a), reversed(self.b), reversed(self.answer), strict=True)
        return ";".join(f"{x}+{y}={z}" for x, y, z in columns) + f">{self.answer}"


def column_problems(seed: int, exclude: frozenset[Columns] = frozenset()) -> Iterator[Columns]:
    """Endless problems outside `exclude`; the number of digits is uniform."""
    rng = random.Random(seed)
    while True:
        digits = rng.randint(1, MAX_DIGITS)
        a, b = (f"{rng.randrange(10**digits):0{digits}}" for _ in range(2))
        if Columns(a, b) not in exclude:
            yield Columns(a, b)


def in_turn(*sources: Iterator[Problem | Columns]) -> Iterator[Problem | Columns]:
    """One of each, again and again."""
    return chain.from_iterable(zip(*sources, strict=True))


def accuracy(held_out: list[Problem | Columns], model: LlamaForCausalLM) -> float:
    """Share of right answers, sampled at temperature 1."""
    texts = completions(model, make_tokenizer(CHARACTERS), [p.prompt for p in held_out], 72)
    return sum(t.endswith(f">{p.answer}") for t, p in zip(texts, held_out, strict=True)) / len(held_out)


def make(
    base: str | None, recipe: Recipe, source: Iterator[Problem | Columns], held_out: list[Problem | Columns], out: Path
) -> None:
    """The model `base` of examples/skill, or with None a new one, trained on."""
    tokenizer = make_tokenizer(CHARACTERS)
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, tokenizer) if base is None else LlamaForCausalLM.from_pretrained(SKILL / base)
    train(model, recipe, partial(loss, source, tokenizer), partial(accuracy, held_out), every=100)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def write(path: Path, tagged: dict[str, list[Problem | Columns]]) -> None:
    lines = [{"prompt": p.prompt, "answer": p.answer, "tag": tag} for tag, own in tagged.items() for p in own]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    held_out = {"sum": list(islice(problems(3), HELD_OUT)), "column": list(islice(column_problems(3), HELD_OUT))}
    sums, columns = frozenset(held_out["sum"]), frozenset(held_out["column"])
    prompts = {
        "sum": list(islice(problems(4, sums), PROMPTS)),
        "column": list(islice(column_problems(4, columns), PROMPTS)),
    }
    write(out / "eval.jsonl", held_out)
    write(out / "both.jsonl", prompts)
    for tag, own in prompts.items():
        write(out / f"{tag}.jsonl", {tag: own})
    print("teacher of column", flush=True)
    make("teacher", TEACHER, column_problems(TEACHER.seed, columns), held_out["column"], out / "columns")
    for name, base, recipe in (("student", "student", STUDENT), ("wide", None, WIDE)):
        print(name, flush=True)
        both = in_turn(problems(recipe.seed, sums), column_problems(recipe.seed, columns))
        make(base, recipe, both, held_out["sum"] + held_out["column"], out / name)


if __name__ == "__main__":
    main()
