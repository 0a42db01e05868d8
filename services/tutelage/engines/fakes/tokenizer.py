"""The toy teacher's tokenizer as a directory: "t<i>" is token i, words are apart by spaces, token 0 ends a text."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tutelage.engines.fake import EOS_ID

CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def write_tokenizer(path: Path, vocabulary_size: int) -> Path:
    """Save it under `path`. A word that is no token becomes the last one."""
    vocabulary = {f"t{i}": i for i in range(vocabulary_size)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=f"t{vocabulary_size - 1}"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=f"t{EOS_ID}", unk_token=f"t{vocabulary_size - 1}", chat_template=CHAT
    ).save_pretrained(path)
    return path
