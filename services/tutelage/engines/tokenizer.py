"""Tokenizers: loading one, telling two apart, turning a prompt into ids, knowing what ends a text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from jinja2 import TemplateError
from transformers import AutoTokenizer

from tutelage_client.errors import InvalidInput
from tutelage_client.wire import Prompt


class ModelTokenizer:
    """A tokenizer of the transformers library behind the contract of `base.Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.special_ids = frozenset(tokenizer.all_special_ids)

    def encode(self, prompt: Prompt) -> list[int]:
        """See `encode_prompt`."""
        return encode_prompt(self._tokenizer, prompt)

    def decode(self, token_ids: Sequence[int]) -> str:
        """As the tokens stand, without tidying of spaces."""
        return self._tokenizer.decode(list(token_ids), clean_up_tokenization_spaces=False)


def load_tokenizer(path: str | Path, revision: str | None = None) -> Any:
    """The tokenizer in a directory, or of a hub id at `revision`. Code that comes with it is not run.

    Raises:
        InvalidInput: there is none, or it cannot be read.
    """
    local = Path(path).is_dir()
    if local and not any(Path(path).glob("*token*.json")) and not any(Path(path).glob("*.model")):
        raise InvalidInput(f"{path} has no tokenizer; save one there with tokenizer.save_pretrained", "model")
    try:
        return AutoTokenizer.from_pretrained(
            str(path), revision=revision or "main", trust_remote_code=False, local_files_only=local
        )
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"the tokenizer of {path} cannot be loaded: {first_line(error)}", "model") from error


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 over all (token, id) pairs, added tokens included: equal where ids mean the same text."""
    pairs = sorted((tokenizer.get_vocab() | tokenizer.get_added_vocab()).items())
    return hashlib.sha256(json.dumps(pairs, ensure_ascii=True).encode()).hexdigest()


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Text with the tokenizer's own special tokens, messages by its chat template up to the answer, ids as they are.

    Raises:
        InvalidInput: no tokens come out, or the chat template is missing or refuses the messages.
    """
    if isinstance(prompt, str):
        ids: list[Any] = tokenizer(prompt)["input_ids"]
    elif prompt and isinstance(prompt[0], dict):
        ids = _encode_messages(tokenizer, cast(list[dict[str, Any]], prompt))
    else:
        ids = list(prompt)
    if not ids:
        raise InvalidInput("the prompt has no tokens; give at least one", "prompts")
    return ids


def eos_ids(model_or_config: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends a text: of the generation config, the model's config and the tokenizer together."""
    config = getattr(model_or_config, "config", model_or_config)
    generation = getattr(model_or_config, "generation_config", None)
    found: set[int] = set()
    for source in (generation, config, config.get_text_config(decoder=True), tokenizer):
        value = getattr(source, "eos_token_id", None)
        found |= set(value if isinstance(value, list | tuple) else () if value is None else (value,))
    return frozenset(found)


def piece(tokenizer: Any, token_id: int) -> str:
    """A token as it reads alone. SentencePiece decodes the first word of a text without the space before it."""
    text = cast(str, tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
    begins_word = str(tokenizer.convert_ids_to_tokens(token_id)).startswith("\u2581")
    return f" {text}" if begins_word and not text.startswith(" ") else text


def first_line(error: BaseException) -> str:
    """A library's long message cut to what fits into one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _encode_messages(tokenizer: Any, messages: list[dict[str, Any]]) -> list[int]:
    if not tokenizer.chat_template:
        raise InvalidInput("this tokenizer has no chat template; send text or token ids instead of messages", "prompts")
    try:
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    except (TemplateError, ValueError, TypeError, KeyError) as error:
        message = f"the chat template refuses the messages: {first_line(error)}; each needs a role and a content"
        raise InvalidInput(message, "prompts") from error
    return encoded["input_ids"]
