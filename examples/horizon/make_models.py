"""Make the demo's stage `horizon`: prompts, teacher and cold-started student: `python examples/horizon/make_models.py`.

A walk on a grid. The prompt names the target, the student writes moves and then stops, right if it stands there:

    3,-2:RDRDR

Nothing of the walk is shown but its moves, so the walker must count, and a mistake can be mended: whoever strays may
walk back. The teacher learns on walks with random moves in them what is helpful from wherever they led, so it knows the
way from states that its own text never visits. The student learns on walks without mistakes, and only for a while.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from small_models import BATCH, Recipe, completions, make_model, make_tokenizer, padded, train  # noqa: E402

CHARACTERS = "0123456789-,:RLUD"
MOVES = {"R": (1, 0), "L": (-1, 0), "U": (0, 1), "D": (0, -1)}
# Coordinates stay within what every arm has seen; a target beyond TRAINED moves is new by its distance alone.
LARGEST, TRAINED, BEYOND = 12, 16, 22
MAX_MOVES = 64
# Share of random moves in a walk of the teacher's training; the student's have none.
TEACHER_NOISE, STUDENT_NOISE = (0.0, 0.1, 0.3), (0.0,)
TEACHER = Recipe(hidden_size=128, layers=4, steps=3000, schedule=3000, lr=1.5e-3, seed=1)
STUDENT = Recipe(hidden_size=64, layers=3, steps=450, schedule=1500, lr=3e-3, seed=2)
# A student of a third of the size, for `python -m experiments collapse`.
SMALL = Recipe(hidden_size=48, layers=2, steps=450, schedule=1500, lr=3e-3, seed=2)


class Target(NamedTuple):
    x: int
    y: int

    @property
    def prompt(self) -> str:
        return f"{self.x},{self.y}:"

    @property
    def distance(self) -> int:
        return abs(self.x) + abs(self.y)

    @property
    def line(self) -> dict[str, str]:
        """As a data file has it; the tag is the range of its distance."""
        first = next(d for d in (17, 13, 9, 5, 1) if self.distance >= d)
        last = {17: BEYOND}.get(first, first + 3)
        return {"prompt": self.prompt, "answer": f"{self.x},{self.y}", "tag": f"{first:02}-{last:02}"}


class Walk(NamedTuple):
    """Moves, and what was helpful before each of them and after the last (nothing: stop)."""

    moves: str
    helpful: list[list[str]]


def helpful(dx: int, dy: int) -> list[str]:
    """The moves that shorten the way to a target that lies (dx, dy) away; none there."""
    return [move for move, (x, y) in MOVES.items() if x * dx + y * dy > 0]


def walk(target: Target, rng: random.Random, noise: float) -> Walk:
    """An even choice among the helpful moves; with probability `noise` any move, even where it should have stopped."""
    dx, dy = target
    moves, choices = "", [helpful(dx, dy)]
    while len(moves) < MAX_MOVES:
        strays = rng.random() < noise
        if not (strays or choices[-1]):
            break
        move = rng.choice(list(MOVES) if strays else choices[-1])
        dx, dy = dx - MOVES[move][0], dy - MOVES[move][1]
        moves += move
        choices.append(helpful(dx, dy))
    return Walk(moves, choices)


class Split(NamedTuple):
    """Targets to train on, and those that nobody trains on: to tune on and to evaluate on."""

    train: list[Target]
    tune: list[Target]
    evaluate: list[Target]


def split(seed: int) -> Split:
    """Of every distance: a quarter is for evaluation and a seventh for tuning; beyond TRAINED nothing is trained on."""
    rng, parts = random.Random(seed), Split([], [], [])
    side = range(-LARGEST, LARGEST + 1)
    for distance in range(1, BEYOND + 1):
        there = [Target(x, y) for x in side for y in side if abs(x) + abs(y) == distance]
        rng.shuffle(there)
        beyond = distance > TRAINED
        first, second = (3 * len(there) // 5, len(there)) if beyond else (len(there) // 4, 2 * len(there) // 5)
        parts.evaluate.extend(there[:first])
        parts.tune.extend(there[first:second])
        parts.train.extend(there[second:])
    return parts


def drawn(targets: list[Target], seed: int) -> Iterator[Target]:
    """Endless targets, their distance uniform."""
    rng = random.Random(seed)
    by_distance: dict[int, list[Target]] = {}
    for target in targets:
        by_distance.setdefault(target.distance, []).append(target)
    distances = sorted(by_distance)
    while True:
        yield rng.choice(by_distance[rng.choice(distances)])


def loss(
    source: Iterator[Target],
    rng: random.Random,
    noises: tuple[float, ...],
    tokenizer: PreTrainedTokenizerFast,
    model: LlamaForCausalLM,
) -> torch.Tensor:
    """Cross-entropy of a fresh batch of walks with an even choice among the moves that were helpful."""
    rows, wanted = [], []
    for target in islice(source, BATCH):
        moves, choices = walk(target, rng, rng.choice(noises))
        prompt = tokenizer(target.prompt)["input_ids"]
        rows.append(prompt + tokenizer.convert_tokens_to_ids(list(moves)))
        ids = [tokenizer.convert_tokens_to_ids(choice) or [tokenizer.eos_token_id] for choice in choices]
        wanted.append((len(prompt) - 1, ids))
    ids_BT = padded(rows, tokenizer)
    goal_BTV = torch.zeros(*ids_BT.shape, len(tokenizer))
    for row, (first, choices) in enumerate(wanted):
        for t, choice in enumerate(choices):
            goal_BTV[row, first + t, choice] = 1 / len(choice)
    return -(goal_BTV * model(input_ids=ids_BT).logits.log_softmax(-1)).sum() / goal_BTV.sum()


def success(tokenizer: PreTrainedTokenizerFast, chosen: list[Target], model: LlamaForCausalLM) -> float:
    """Share of targets reached, sampled at temperature 1."""
    texts = completions(model, tokenizer, [target.prompt for target in chosen], MAX_MOVES)
    return sum(reached(text) == target for text, target in zip(texts, chosen, strict=True)) / len(chosen)


def reached(moves: str) -> tuple[int, int]:
    return sum(MOVES[m][0] for m in moves if m in MOVES), sum(MOVES[m][1] for m in moves if m in MOVES)


def make(recipe: Recipe, targets: list[Target], noises: tuple[float, ...], held_out: list[Target]) -> LlamaForCausalLM:
    tokenizer = make_tokenizer(CHARACTERS)
    model = make_model(recipe, tokenizer)
    source = drawn(targets, recipe.seed)
    rng = random.Random(recipe.seed)
    train(model, recipe, partial(loss, source, rng, noises, tokenizer), partial(success, tokenizer, held_out))
    return model


def write_lines(path: Path, chosen: list[Target]) -> None:
    path.write_text("".join(json.dumps(target.line) + "\n" for target in chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--only", choices=("teacher", "student", "small"))
    args = parser.parse_args()
    parts = split(3)
    write_lines(args.out / "eval.jsonl", parts.evaluate)
    write_lines(args.out / "tune.jsonl", parts.tune)
    write_lines(args.out / "prompts.jsonl", list(islice(drawn(parts.train, 4), 8192)))
    beyond = [target for target in parts.tune if target.distance > TRAINED]
    write_lines(args.out / "far.jsonl", list(islice(drawn(parts.train + beyond, 4), 4096)))
    everything = [target for part in parts for target in part]
    near = [target for target in parts.evaluate if target.distance <= TRAINED]
    plans = {
        "teacher": (TEACHER, everything, TEACHER_NOISE, parts.evaluate),
        "student": (STUDENT, parts.train, STUDENT_NOISE, near),
        "small": (SMALL, parts.train, STUDENT_NOISE, near),
    }
    for name, plan in plans.items():
        if args.only in (None, name):
            print(name, flush=True)
            make(*plan).save_pretrained(args.out / name)
            make_tokenizer(CHARACTERS).save_pretrained(args.out / name)


if __name__ == "__main__":
    main()
