"""Clients of others at a teacher's OpenAI-compatible door, in the environment of `make bench-peers`; no code of ours.

    python clients_worker.py URL NAME MODEL QUESTIONS FOLDER

lm-eval runs a log-likelihood task on the file QUESTIONS twice: with the directory MODEL by itself, and with the teacher
NAME at URL. TRL asks the teacher for its top-k of given sequences. FOLDER/out.json gets what all of them saw.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import requests
from lm_eval import simple_evaluate  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
from trl.generation.vllm_client import VLLMClient  # pyright: ignore[reportMissingImports]

SEQUENCES, PROMPT_LENGTHS, K = [[5, 9, 2, 7, 3], [1, 4, 4]], [2, 1], 4


def lm_eval(model: str, arguments: str, questions: str, folder: Path) -> dict[str, Any]:
    """The log-likelihood of each answer and whether it is what greedy decoding writes, and the task's metrics."""
    task = {
        "task": "sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": questions}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{answer}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    }
    (folder / "sums.yaml").write_text(json.dumps(task))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(
        model, arguments, tasks=["sums"], task_manager=manager, batch_size=4, log_samples=True, bootstrap_iters=0
    )
    assert found is not None
    answers = [sample["filtered_resps"][0] for sample in found["samples"]["sums"]]
    metrics = {name: value for name, value in found["results"]["sums"].items() if isinstance(value, float)}
    return {"answers": answers, "metrics": metrics}


def trl(url: str, name: str) -> dict[str, Any]:
    """As its distillation trainer asks a served teacher, without the constructor, which wants vLLM installed."""
    client = object.__new__(VLLMClient)
    client.session, client.base_url, client.model = requests.Session(), url, name
    client.check_server()
    assert name in [card["id"] for card in client._get(f"{url}/v1/models")["data"]]
    try:
        client.get_sequence_logprobs(SEQUENCES, PROMPT_LENGTHS, K, temperature=0.7)
    except Exception as refusal:
        refused = str(refusal)
    else:
        refused = ""
    asked = {"sequences": SEQUENCES, "prompt_lengths": PROMPT_LENGTHS, "k": K}
    return asked | {"refused": refused, "saw": client.get_sequence_logprobs(SEQUENCES, PROMPT_LENGTHS, K)}


def main(url: str, name: str, model: str, questions: str, folder: Path) -> None:
    served = f"model={name},base_url={url}/v1/completions,tokenizer={model},tokenizer_backend=huggingface"
    out = {
        "hf": lm_eval("hf", f"pretrained={model},dtype=float32,device=cpu", questions, folder),
        "served": lm_eval("local-completions", served, questions, folder),
        "trl": trl(url, name),
    }
    (folder / "out.json").write_text(json.dumps(out))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], Path(sys.argv[5]))
