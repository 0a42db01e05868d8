"""Make the demo's task, teacher and cold-started student: `python examples/skill/make_models.py`.

The task is column addition written out digit by digit from the right, "carry in, carry out" shown:

    47+85:7+5+0=2,1;4+8+1=3,1>132

so that one wrong carry spoils the sum. Both terms have the same number of digits, with leading zeros where needed.
Teacher and student are small Llama models over the same 20 characters; both learn from fresh problems by plain
supervised training, the teacher until it is near perfect, the student only for a while.
Seeds are fixed: the same torch on the same kind of processor writes the same files.
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

CHARACTERS = "0123456789+=,;:>"
MAX_DIGITS = 5
# The student stops early on its schedule: that is the cold start.
TEACHER = Recipe(hidden_size=96, layers=3, steps=1600, schedule=1600, lr=2e-3, seed=1)
STUDENT = Recipe(hidden_size=64, layers=2, steps=450, schedule=1500, lr=3e-3, seed=2)


class Problem(NamedTuple):
    a: int
    b: int
    digits: int

    @property
    def prompt(self) -> str:
        return f"{self.a:0{self.digits}}+{self.b:0{self.digits}}:"

    @property
    def answer(self) -> str:
        return str(self.a + self.b)

    @property
    def completion(self) -> str:
        """The sum column by column from the right, then the answer."""
        carry, columns = 0, []
        for i in range(self.digits):
            x, y = (self.a // 10**i) % 10, (self.b // 10**i) % 10
            carry_out, digit = divmod(x + y + carry, 10)
            columns.append(f"{x}+{y}+{carry}={digit},{carry_out}")
            carry = carry_out
        return ";".join(columns) + f">{self.answer}"


def problems(seed: int, exclude: frozenset[Problem] = frozenset()) -> Iterator[Problem]:
    """Endless problems outside `exclude`; the number of digits is uniform, so short sums are not rare."""
    rng = random.Random(seed)
    while True:
        digits = rng.randint(1, MAX_DIGITS)
        problem = Problem(rng.randrange(10**digits), rng.randrange(10**digits), digits)
        if problem not in exclude:
            yield problem


def loss(source: Iterator[Problem], tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> torch.Tensor:
    """Cross-entropy of the completions of a fresh batch."""
    rows, starts = [], []
    for problem in islice(source, BATCH):
        prompt = tokenizer(problem.prompt)["input_ids"]
        rows.append([*prompt, *tokenizer(problem.completion)["input_ids"], tokenizer.eos_token_id])
        starts.append(len(prompt))
    ids = padded(rows, tokenizer)
    columns = torch.arange(ids.shape[1])
    lengths, first = torch.tensor([len(r) for r in rows])[:, None], torch.tensor(starts)[:, None]
    labels = torch.where((columns >= first) & (columns < lengths), ids, -100)
    return model(input_ids=ids, labels=labels).loss


def accuracy(tokenizer: PreTrainedTokenizerFast, held_out: list[Problem], model: LlamaForCausalLM) -> float:
    """Share of right answers, sampled at temperature 1."""
    texts = completions(model, tokenizer, [p.prompt for p in held_out], 72)
    right = [t.endswith(f">{p.answer}") for t, p in zip(texts, held_out, strict=True)]
    return sum(right) / len(right)


def make(recipe: Recipe, held_out: list[Problem]) -> LlamaForCausalLM:
    tokenizer = make_tokenizer(CHARACTERS)
    model = make_model(recipe, tokenizer)
    source = problems(recipe.seed, exclude=frozenset(held_out))
    train(model, recipe, partial(loss, source, tokenizer), partial(accuracy, tokenizer, held_out[:128]))
    return model


def write_problems(path: Path, chosen: list[Problem]) -> None:
    path.write_text("".join(json.dumps({"prompt": p.prompt, "answer": p.answer}) + "\n" for p in chosen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    held_out = list(islice(problems(3), 256))
    write_problems(args.out / "eval.jsonl", held_out)
    tuning = list(islice(problems(5, frozenset(held_out)), 256))
    write_problems(args.out / "tune.jsonl", tuning)
    write_problems(args.out / "prompts.jsonl", list(islice(problems(4, frozenset(held_out + tuning)), 8192)))
    for name, recipe in (("teacher", TEACHER), ("student", STUDENT)):
        print(name, flush=True)
        make(recipe, held_out).save_pretrained(args.out / name)
        make_tokenizer(CHARACTERS).save_pretrained(args.out / name)


if __name__ == "__main__":
    main()
