"""Why the language stage's arms lie so close: how far does text bring the student that no teacher wrote or marked?

By plain cross-entropy the student learns prose of this project's documentation as the answer to every prompt: English,
but no answer. What that lowers is the student's English coming back, and no merit of any teacher.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any

from experiments.comparison import write_result
from experiments.language import FOLDER, KEPT, SEEDS, Plan, commit, device, outcomes, summary, yardsticks
from experiments.language_page import METRIC, spread
from tutelage_client.spec import load_spec, parse_spec

TAUGHT = Path("docs/results/language.json")
PROSE = (Path("docs"), Path("docs/howto"))
WORDS = 50
GENERATED = "algorithms.md"
NOT_PROSE = re.compile(r"^([-|#<!*`]|\d+\.|    )|```|\]\(")


async def language_cause(out: Path) -> None:
    """Run the arm with every seed; write `out` and the page beside it."""
    runs = await outcomes([plan(seed) for seed in SEEDS])
    result = {
        "name": "language_cause",
        "command": f"python -m experiments language_cause --json {out}",
        "device": device(),
        "commit": commit(),
        "seeds": list(SEEDS),
        **(await yardsticks()),
        "runs": [asdict(run) for run in runs],
        "arms": {"any_text": summary(runs)},
    }
    write_result(out, result, page(result, json.loads(TAUGHT.read_text())))


def plan(seed: int) -> Plan:
    """The stage's arm `sft` with text from elsewhere: its learning rate, its texts a step, as many steps as it took."""
    taught = json.loads(TAUGHT.read_text())["arms"]["sft"]
    spec = load_spec(FOLDER / "sft.toml").model_dump(mode="json")
    spec |= {"name": "any_text", "seed": seed, "teachers": [], "budget": {}}
    spec["optim"]["steps"] = max(taught["steps"])
    spec["rollout"]["source"] = "data"
    spec["data"]["train"] = str(write_text(KEPT / "any_text.jsonl").resolve())
    return Plan(parse_spec(spec), "eval")


def write_text(path: Path) -> Path:
    """The stage's prompts, each with a stretch of prose that has nothing to do with it."""
    prompts = cycle((FOLDER / "prompts.jsonl").read_text().splitlines())
    lines = (json.loads(prompt) | {"completion": text} for prompt, text in zip(prompts, stretches(), strict=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def stretches() -> Iterator[str]:
    """Running text of the documentation in stretches of WORDS words, without code, tables, lists and headings."""
    pages = [path.read_text() for folder in PROSE for path in sorted(folder.glob("*.md")) if path.name != GENERATED]
    paragraphs = (paragraph for page in pages for paragraph in page.split("\n\n") if not NOT_PROSE.search(paragraph))
    words = " ".join(paragraphs).replace("`", "").split()
    for start in range(0, len(words) - WORDS, WORDS):
        yield " ".join(words[start : start + WORDS])


def lowered(figures: dict[str, Any], before: dict[str, float]) -> float:
    return before[METRIC] - figures[METRIC][0]


def page(result: dict[str, Any], taught: dict[str, Any]) -> str:
    """The result as a page of the docs, beside the arms of the stage."""
    own = result["arms"]["any_text"]["figures"]
    rows = {"any_text": own} | {arm: s["figures"] for arm, s in taught["arms"].items()}
    lines = [
        "# Demo: stage `language`, why its arms lie so close",
        "",
        f"Made by `{result['command']}` on {result['device']}, commit `{result['commit'][:12]}`.",
        "",
        "The arm `any_text` asks no teacher: it learns prose of this documentation as the answer to every prompt, with",
        "the learning rate, the texts a step and the number of steps of `sft`. Beside it the stage's arms as its own",
        f"page has them. Mean of seeds {', '.join(map(str, result['seeds']))}; lowest and highest in brackets.",
        "",
        "| arm | reverse KL | teacher log-prob | log-prob of teacher text | repeated 4-grams |",
        "|---|---|---|---|---|",
        f"| before | {result['before'][METRIC]:.3f} | {result['before']['teacher_logprob']:.2f} "
        f"| {result['before']['teacher_text_logprob']:.2f} | {result['before']['repetition']:.2%} |",
    ]
    for arm, f in rows.items():
        cells = [spread(f[METRIC], ".3f"), spread(f["teacher_logprob"], ".2f")]
        cells += [spread(f["teacher_text_logprob"], ".2f"), spread(f["repetition"], ".2%")]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *verdict(own, taught)]) + "\n"


def verdict(own: dict[str, Any], taught: dict[str, Any]) -> list[str]:
    """What part of the arms' effect needs no teacher, and how they compare in the rest."""
    arms, before = taught["arms"], taught["before"]
    shares = (f"{lowered(own, before) / lowered(s['figures'], before):.0%} of {arm}" for arm, s in arms.items())
    beyond = {arm: own[METRIC][0] - s["figures"][METRIC][0] for arm, s in arms.items()}
    rest = (f"{arm} {value:.2f}" for arm, value in beyond.items())
    lines = [
        "How far text from elsewhere alone lowers reverse KL, as a share of what an arm lowers it: "
        f"{', '.join(shares)}. What the arms add to it, in nats: {', '.join(rest)}."
    ]
    if beyond["token_kd"] > 0:
        lines += [
            "",
            f"Measured from there, opd goes {beyond['opd'] / beyond['token_kd']:.2f} times as far as token_kd.",
        ]
    return lines
