"""What a run began with, and must find again when it resumes: a checkpoint alone does not tell.

Which lines a step uses follows from (seed, step) only as long as the lines are the same; the tokenizer, the model under
adapters and the reference are loaded anew by every attempt.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import Tensor

import tutelage
from tutelage.engines.tokenizer import tokenizer_fingerprint
from tutelage.trainer.data import Example
from tutelage.trainer.student import Student
from tutelage_client.errors import InvalidInput


def versions() -> dict[str, str]:
    """The code that computes."""
    own = {"tutelage": tutelage.__version__, "python": platform.python_version()}
    return own | {"torch": torch.__version__, "transformers": transformers.__version__}


@dataclass(frozen=True)
class Origin:
    """parts: sha256 of what must not change, by the field of the spec that names it; versions: of the code."""

    parts: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=versions)

    def hold_to(self, began: Origin) -> None:
        """Raises InvalidInput where a part is not what it was when the run began."""
        for name, sha256 in self.parts.items():
            if began.parts.get(name) != sha256:
                sentence = "it is not what this run began with; put it back as it was, or submit a new run"
                raise InvalidInput(f"{name}: {sentence}", name)

    def changed_since(self, began: Origin) -> str | None:
        """Which code is another one than at the checkpoint, in a sentence; None: none is."""
        found = ((name, began.versions.get(name), now) for name, now in self.versions.items())
        changed = [f"{name} {before}, now {now}" for name, before, now in found if before != now]
        if not changed:
            return None
        return f"the checkpoint was written by {'; '.join(changed)}: from here on the last bits may differ"


def origin_of(
    spec: Mapping[str, Any], student: Student, train: Iterable[Example], held_out: Iterable[Example] | None
) -> Origin:
    """As this attempt finds it, before the student is put where the checkpoint left it. spec: as it was leased"""
    parts = {"spec": _sha256([json.dumps(spec, sort_keys=True).encode()]), "student.model": _of_model(student)}
    if student.reference is not None and student.spec.reference is not None:
        parts["reference.model"] = _sha256(map(_bytes, student.reference.model.parameters()))
    for name, examples in (("data.train", train), ("data.eval", held_out or ())):
        parts[name] = _sha256(_line(example) for example in examples)
    return Origin(parts)


def _line(example: Example) -> bytes:
    told = (example.prompt_ids, example.completion_ids, example.answer, example.tag)
    return json.dumps(told).encode() + b"\n"


def _of_model(student: Student) -> str:
    """The tokenizer, and the weights that every attempt reads from the model and none changes."""
    frozen = [p for p in student.model.parameters() if not p.requires_grad]
    if student.reference is not None and student.spec.reference is None:
        frozen += student.reference.model.parameters()
    return _sha256([tokenizer_fingerprint(student.tokenizer).encode(), *map(_bytes, frozen)])


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data


def _sha256(parts: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
