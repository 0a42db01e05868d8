"""The student's weights as samplers find them: published once a version, kept while its text may be learned from."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.engines.snapshots import Base, publish
from tutelage.engines.snapshots.files import known_ids
from tutelage.trainer.checkpoint import refusing
from tutelage.trainer.writer import Writer
from tutelage_client.wire import Rollout, SnapshotRef


class Snapshots:
    """Those of one attempt, in a folder of its own below `root`, so that no attempt touches a later one's.

    max_lag: versions that a text may be behind; base: the model below adapters, where the student has them
    """

    def __init__(self, root: Path, epoch: int, max_lag: int, base: Base | None) -> None:
        self._root = root
        self._epoch = epoch
        self._max_lag = max_lag
        self._base = base
        self._published: dict[int, SnapshotRef] = {}

    @property
    def folder(self) -> Path:
        return self._root / f"e{self._epoch}"

    def publish(self, writer: Writer) -> SnapshotRef:
        """The writer's weights, as they stay while it writes. First older ones go, of which no text is wanted any more.

        Raises:
            NotSaved: the disk refuses.
        """
        if (known := self._published.get(writer.step)) is not None:
            return known
        self._let_go(writer.step - self._max_lag)
        with refusing(f"the snapshot of policy version {writer.step}", self.folder / f".{writer.step:08d}.tmp"):
            ref = publish(self.folder, self._about(writer), writer.model.save_pretrained)
        self._published[writer.step] = ref
        return ref

    def clear(self) -> None:
        """The attempt has ended."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _let_go(self, oldest: int) -> None:
        for version in [version for version in self._published if version < oldest]:
            shutil.rmtree(self._published.pop(version).path, ignore_errors=True)
        for folder in self._root.glob("e*"):
            if re.fullmatch(r"e\d+", folder.name) and int(folder.name[1:]) < self._epoch:
                shutil.rmtree(folder, ignore_errors=True)

    def _about(self, writer: Writer) -> dict[str, Any]:
        ids = known_ids(min(len(writer.head.weight), len(writer.tokenizer)))[: writer.max_length]
        known = {"prompt_ids": ids[:1], "completion_ids": ids[1:], "mask": np.ones(len(ids) - 1, dtype=np.bool_)}
        rollout = Rollout.model_validate({"id": "known", "source": "student", "policy_version": writer.step} | known)
        return {
            "policy_version": writer.step,
            "dtype": writer.spec.student.dtype,
            "eos_ids": sorted(writer.eos_ids),
            "pad_id": writer.pad_id,
            "base": self._base,
            "known_ids": ids.tolist(),
            "known_logprobs": writer.logprobs(rollout).tolist(),
        }
