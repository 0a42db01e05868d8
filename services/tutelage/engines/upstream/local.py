"""What is known of an upstream's model on this side: its tokenizer directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import AutoConfig, GenerationConfig

from tutelage.engines.tokenizer import eos_ids, first_line, load_tokenizer, tokenizer_fingerprint
from tutelage_client.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The tokenizer of an upstream's model, what ends a text, and how wide the output head is."""

    name: str
    tokenizer: Any
    fingerprint: str
    eos_ids: tuple[int, ...]
    vocabulary_size: int


def read_local(model: str, revision: str | None) -> LocalModel:
    """A directory with the tokenizer and, better, `config.json` and `generation_config.json`; or a hub id.

    Raises:
        InvalidInput: there is no tokenizer, or a file in it cannot be read.
    """
    tokenizer = load_tokenizer(model, revision)
    known = max(tokenizer.get_vocab().values()) + 1
    config = _read(AutoConfig, model, "config.json")
    generation = _read(GenerationConfig, model, "generation_config.json")
    ends = {i for i in (tokenizer.eos_token_id,) if i is not None}
    if config is not None:
        ends |= eos_ids(SimpleNamespace(config=config, generation_config=generation), tokenizer)
    return LocalModel(
        name=Path(model).resolve().name if Path(model).is_dir() else model,
        tokenizer=tokenizer,
        fingerprint=tokenizer_fingerprint(tokenizer),
        eos_ids=tuple(sorted(ends)),
        vocabulary_size=known if config is None else config.get_text_config(decoder=True).vocab_size,
    )


def _read(kind: Any, model: str, file: str) -> Any:
    """The directory's `file`, None where it has none."""
    if not (Path(model) / file).is_file():
        return None
    try:
        return kind.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{file} of {model} cannot be read: {first_line(error)}", "model") from error
