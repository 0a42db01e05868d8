"""Whether a server's tokenizer is the one in --model: how it cuts texts into ids, and how it spells ids."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tutelage.engines.upstream.dialect import Dialect
from tutelage.engines.upstream.local import LocalModel
from tutelage_client.errors import BadScores

_SAMPLE = "On-policy distillation: 3 + 4 = 7, ça va? 你好\n\tdef f(x):"
_SPREAD = 32


async def compare_tokenizers(local: LocalModel, dialect: Dialect, max_length: int) -> str:
    """What was found equal, for people.

    Raises:
        BadScores: the server has another tokenizer.
    """
    special = sorted({*local.tokenizer.all_special_ids, *local.eos_ids})
    cut = await _cut_alike(local, dialect, " ".join(_text(local, i) for i in special))
    spread = np.linspace(0, len(local.tokenizer) - 1, _SPREAD).astype(int).tolist()
    spelt = await _spelt_alike(local, dialect, [*special, *spread][: max_length - 1])
    found = [f"equal on a sample text and {len(special)} special tokens"] if cut else []
    found += [f"equal in the texts of {spelt} tokens"] if spelt else []
    return "; ".join(found) or (
        "as configured in --model, not verified: the upstream has no /tokenize and spells no token in its answers"
    )


async def _cut_alike(local: LocalModel, dialect: Dialect, special: str) -> bool:
    """False where the server does not say."""
    for text in filter(None, (_SAMPLE, special)):
        theirs = await dialect.tokenize(text)
        if theirs is None:
            return False
        if theirs != local.tokenizer(text, add_special_tokens=False)["input_ids"]:
            raise _other("they cut a text into different ids")
    return True


async def _spelt_alike(local: LocalModel, dialect: Dialect, ids: Sequence[int]) -> int:
    """How many tokens the server spelt. Spaces and parts of a character depend on what is beside them."""
    compared: set[int] = set()
    for token_id, theirs in zip(ids, await dialect.spell(ids), strict=True):
        ours = _text(local, token_id)
        if not theirs or not ours or "\ufffd" in theirs + ours:
            continue
        if theirs.strip() != ours.strip():
            raise _other(f"they spell the token {token_id} {theirs!r} and {ours!r}")
        compared.add(token_id)
    return len(compared)


def _text(local: LocalModel, token_id: int) -> str:
    return local.tokenizer.decode([token_id], clean_up_tokenization_spaces=False)


def _other(how: str) -> BadScores:
    return BadScores(
        f"the upstream's tokenizer is not the one in --model: {how}; give the directory of the model that the upstream "
        "serves"
    )
