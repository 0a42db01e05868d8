"""A tiny student and its questions, made in process, and a session without a coordinator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from recording_worker import RecordingWorker, lease
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from whole_runs import SAMPLED, Build, attempts, sections

from tutelage.core.objective import Objective
from tutelage.engines import FakeOptions
from tutelage.engines.fake import FakeEngine
from tutelage.engines.tokenizer import tokenizer_fingerprint
from tutelage.trainer.collate import micro_batches
from tutelage.trainer.loading import load_student
from tutelage.trainer.marking import Scored
from tutelage.trainer.objectives import objective_of
from tutelage.trainer.session import Session
from tutelage.trainer.student import Student
from tutelage_client.spec import RunSpec, parse_spec
from tutelage_client.wire import Rollout, TokenScores

WORDS = ["<pad>", "<eos>", *"abcdefghijklmnopqrstuvwxyz"]
SUPERVISED = {"kind": "supervised"}


def word_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(vocab={word: i for i, word in enumerate(WORDS)}, unk_token="z"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer()


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with attention dropout, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


MakeSpec = Callable[..., RunSpec]


@pytest.fixture(scope="session")
def make_spec(model_dir: Path) -> MakeSpec:
    def make(objective: dict[str, Any] = SUPERVISED, **sections: Any) -> RunSpec:
        asks = objective["kind"] in ("divergence", "policy_gradient")
        source = {"supervised": "data"}.get(objective["kind"], "student")
        return parse_spec(
            {
                "name": "tiny",
                "seed": 5,
                "student": {"model": str(model_dir)} | sections.pop("student", {}),
                "teachers": [{"name": "toy", "on_loss": sections.pop("on_loss", "pause")}] if asks else [],
                "data": {"train": "prompts.jsonl"},
                "rollout": {"source": source, "max_new_tokens": 8} | sections.pop("rollout", {}),
                "objective": objective,
                "optim": {"lr": 1e-2, "max_grad_norm": 1e6} | sections.pop("optim", {}),
            }
            | sections
        )

    return make


@pytest.fixture(scope="session")
def make_student(model_dir: Path) -> Callable[[RunSpec], Student]:
    return lambda spec: load_student(model_dir, spec)


def _rollout(index: int, prompt: Sequence[int], completion: Sequence[int], **fields: Any) -> Rollout:
    return Rollout.model_validate(
        {
            "id": f"r{index:03}",
            "source": "student",
            "policy_version": 0,
            "prompt_ids": list(prompt),
            "completion_ids": list(completion),
            "mask": np.ones(len(completion), dtype=bool),
        }
        | fields
    )


@pytest.fixture(scope="session")
def make_rollout() -> Callable[..., Rollout]:
    return _rollout


@pytest.fixture(scope="session")
def random_rollouts() -> Callable[..., list[Rollout]]:
    def make(count: int, seed: int = 0) -> list[Rollout]:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(1, 9, size=(count, 2))
        return [_rollout(i, rng.integers(2, 28, a), rng.integers(2, 28, b)) for i, (a, b) in enumerate(sizes)]

    return make


@pytest.fixture(scope="session")
def random_scores() -> Callable[..., TokenScores]:
    """Sampled log-probs of no teacher in particular; rows in `unscored` are not valid."""

    def make(rollout: Rollout, seed: int, unscored: Sequence[int] = ()) -> TokenScores:
        rows = len(rollout.completion_ids)
        values = -np.random.default_rng(seed).uniform(0.1, 4.0, rows).astype(np.float32)
        valid = np.ones(rows, dtype=bool)
        valid[list(unscored)] = False
        values[~valid] = np.nan
        return TokenScores(start=len(rollout.prompt_ids), valid=valid, sampled_logprob=values)

    return make


Gradient = dict[str, Tensor]


@pytest.fixture(scope="session")
def gradient_of() -> Callable[..., Gradient]:
    """The mean gradient of one step, read off AdamW's first moment (0.1 g); the student is put back afterwards."""

    def gradient(student: Student, scored: Sequence[Scored], max_tokens: int = 4096, **how: Any) -> Gradient:
        objective: Objective = how.get("objective") or objective_of(student.spec, student)
        start = {name: value.clone() for name, value in student.model.state_dict().items()}
        batches = micro_batches(
            scored,
            max_tokens,
            how.get("pad_id", student.pad_id),
            student.device,
            student.teacher_heads,
            asks_teacher=student.spec.asks_teacher_scores,
        )
        student.learn(batches, objective)
        found = {name: student.optimizer.adamw.state[p]["exp_avg"] * 10 for name, p in student.trained.items()}
        student.model.load_state_dict(start)
        student.optimizer.adamw.state.clear()
        student.step = 0
        return found

    return gradient


@pytest.fixture
def worker() -> RecordingWorker:
    return RecordingWorker()


@pytest.fixture
def session(worker: RecordingWorker, tmp_path: Path) -> Session:
    return Session(cast("Any", worker), lease({}, str(tmp_path)))


@pytest.fixture
def engine(tokenizer: Any) -> FakeEngine:
    """The toy teacher, of the student's family."""
    engine = FakeEngine(FakeOptions(), "toy")
    own = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)}
    engine.provenance = engine.provenance.model_copy(update=own)
    return engine


@pytest.fixture
def spec_of(make_spec: MakeSpec, tmp_path: Path) -> Callable[..., RunSpec]:
    """A short run of so many steps, with other sections where they are given."""
    return lambda steps, **others: make_spec(SAMPLED, **(sections(tmp_path, steps) | others))


@pytest.fixture
def building(engine: FakeEngine, tmp_path: Path) -> Build:
    """Begins an attempt at a run."""
    return attempts(engine, tmp_path)
