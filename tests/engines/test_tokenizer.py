"""Tokenizers are told apart, and prompts become ids as the tokenizer says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GenerationConfig, GPT2Config

from tutelage.engines.tokenizer import encode_prompt, eos_ids, load_tokenizer, tokenizer_fingerprint
from tutelage_client.errors import InvalidInput


def test_a_fingerprint_survives_saving_and_changes_with_the_vocabulary(tokenizer: Any, tmp_path: Path) -> None:
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert tokenizer_fingerprint(loaded) == before
    loaded.add_tokens(["<tool>"])
    assert tokenizer_fingerprint(loaded) != before


def test_text_messages_and_ids_become_ids(tokenizer: Any) -> None:
    assert tokenizer.decode(encode_prompt(tokenizer, "ab é")) == "ab é"
    messages = [{"role": "s", "content": "x"}, {"role": "u", "content": "y"}]
    assert tokenizer.decode(encode_prompt(tokenizer, messages)) == "<s>x<u>y<a>"
    assert encode_prompt(tokenizer, [5, 6]) == [5, 6]


@pytest.mark.parametrize(
    ("prompt", "template", "said"),
    [
        ("", "x", "no tokens"),
        ([], "x", "no tokens"),
        ([{"role": "u", "content": "y"}], None, "no chat template"),
        ([{"role": "u"}], "{{ raise_exception('no content') }}", "no content"),
    ],
)
def test_a_prompt_that_cannot_be_encoded_is_refused(
    prompt: Any, template: str | None, said: str, tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    other = load_tokenizer(tmp_path)
    other.chat_template = template
    with pytest.raises(InvalidInput, match=said):
        encode_prompt(other, prompt)


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_every_end_token_counts(tokenizer: Any) -> None:
    config = GPT2Config(eos_token_id=7)
    model = SimpleNamespace(config=config, generation_config=GenerationConfig(eos_token_id=[8, 9]))
    assert eos_ids(model, tokenizer) == {2, 7, 8, 9}
    assert eos_ids(config, tokenizer) == {2, 7}
