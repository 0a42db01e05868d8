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
import math
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
CHARACTERS = "0123456789+=,;:>"
MAX_DIGITS = 5
# The student stops early on its schedule: that is the cold start.
TEACHER = {"hidden_size": 96, "layers": 3, "heads": 4, "steps": 1600, "schedule": 1600, "lr": 2e-3, "seed": 1}
STUDENT = {"hidden_size": 64, "layers": 2, "heads": 4, "steps": 450, "schedule": 1500, "lr": 3e-3, "seed": 2}
BATCH = 64


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


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", "<unk>", *CHARACTERS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", model_max_length=128
    )
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def make_model(size: dict, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(size["seed"])
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size["hidden_size"],
        intermediate_size=size["hidden_size"] * 5 // 2,
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["heads"],
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batch_of(tokenizer: PreTrainedTokenizerFast, source: Iterator[Problem]) -> tuple[torch.Tensor, torch.Tensor]:
    """Input ids and labels [BATCH, T]; only the completion is learned."""
    rows, starts = [], []
    for _ in range(BATCH):
        problem = next(source)
        prompt = tokenizer(problem.prompt)["input_ids"]
        rows.append([*prompt, *tokenizer(problem.completion)["input_ids"], tokenizer.eos_token_id])
        starts.append(len(prompt))
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    columns = torch.arange(width)
    lengths, first = torch.tensor([len(r) for r in rows])[:, None], torch.tensor(starts)[:, None]
    return ids, torch.where((columns >= first) & (columns < lengths), ids, -100)


def train(size: dict, tokenizer: PreTrainedTokenizerFast, held_out: list[Problem]) -> LlamaForCausalLM:
    model = make_model(size, tokenizer)
    source = problems(size["seed"], exclude=frozenset(held_out))
    optimizer = torch.optim.AdamW(model.parameters(), lr=size["lr"], weight_decay=0.01)
    for step in range(size["steps"]):
        decay = 0.5 * (1 + math.cos(math.pi * step / size["schedule"]))
        for group in optimizer.param_groups:
            group["lr"] = size["lr"] * min(1.0, (step + 1) / 50) * decay
        ids, labels = batch_of(tokenizer, source)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            share = accuracy(model, tokenizer, held_out[:128])
            print(f"  step {step + 1}: loss {loss.item():.4f}, accuracy {share:.2f}", flush=True)
    return model


@torch.inference_mode()
def accuracy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, held_out: list[Problem]) -> float:
    """Share of right answers, sampled at temperature 1."""
    tokenizer.padding_side = "left"
    batch = tokenizer([p.prompt for p in held_out], return_tensors="pt", padding=True, return_token_type_ids=False)
    out = model.eval().generate(**batch, do_sample=True, top_k=0, max_new_tokens=72)
    model.train()
    texts = tokenizer.batch_decode(out[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    tokenizer.padding_side = "right"
    right = [t.endswith(f">{p.answer}") for t, p in zip(texts, held_out, strict=True)]
    return sum(right) / len(right)


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
    tokenizer = make_tokenizer()
    for name, size in (("teacher", TEACHER), ("student", STUDENT)):
        print(name, flush=True)
        model = train(size, tokenizer, held_out)
        model.save_pretrained(args.out / name)
        tokenizer.save_pretrained(args.out / name)


if __name__ == "__main__":
    main()
