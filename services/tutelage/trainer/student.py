"""The model that samples and learns.

Weights that are trained are kept in float32; `dtype = "bfloat16"` runs the forward and backward in bfloat16 (autocast),
since AdamW's small updates would be rounded away in bfloat16 weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from tutelage.core.batch import OutputHead, TeacherSignals, TokenBatch
from tutelage.core.inspection import Inspected, inspected
from tutelage.core.loss import loss
from tutelage.core.metrics import Measured, merge, values
from tutelage.core.objective import Objective
from tutelage.core.workspace import Workspace
from tutelage.engines.head import Head
from tutelage.trainer import moments
from tutelage.trainer.collate import MicroBatch, Unit, collated, cut
from tutelage.trainer.crashes import CrashPoint, Passing, pass_by
from tutelage.trainer.marking import Scored
from tutelage.trainer.optimizer import Optimizer
from tutelage.trainer.writer import Writer, context_length, hidden_states
from tutelage_client.spec import RunSpec, all_names

Told = dict[str, float | None]
Parts = dict[str | None, list[dict[str, Measured]]]
# Told the number of tokens that a step learned from, before it moves the weights.
Before = Callable[[int], None]


def unwatched(_: int) -> None:
    """Nobody looks."""


class Reference(NamedTuple):
    """A model that does not learn, and its output head."""

    model: Any
    head: Head


class Student(Writer):
    """A causal language model with its optimiser. `step` counts optimiser steps done.

    reference: for reference_kl and extrapolation; None where it is not needed, and with LoRA where it is the student as
        it was at the start, which is the model without its adapter
    teacher_heads: the output heads of the teachers by name, for objectives over the full vocabulary
    processes: that learn together, each from its share of a step, which is divided once all of it is scored
    moving: held while weights and `step` change
    """

    processes = 1

    def __init__(
        self,
        model: Any,
        head: Head,
        tokenizer: PreTrainedTokenizerBase,
        spec: RunSpec,
        reference: Reference | None = None,
    ) -> None:
        super().__init__(model, head, tokenizer, spec)
        self.reference = reference
        self.teacher_heads: Mapping[str | None, OutputHead] = {}
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = Optimizer(self.trained, spec.optim)
        self.moving = Lock()
        self._workspace = Workspace()

    @property
    def contexts(self) -> dict[str, int]:
        """Context lengths in tokens of what reads the student's text here, by name."""
        own = {"student": self.max_length}
        return own if self.reference is None else own | {"reference": context_length(self.reference.model)}

    def hear_through(self, heads: Mapping[str | None, OutputHead]) -> None:
        """These are the teachers' heads."""
        self.teacher_heads = heads

    def learn_units(
        self, units: Sequence[Unit], objective: Objective, passing: Passing = pass_by, before: Before = unwatched
    ) -> Told:
        """`learn_from` of all that a step learns from."""
        return self.learn_from(cut(units, self.spec.optim.micro_batch_tokens), objective, passing, before)

    def learn_from(
        self,
        batches: Iterable[Sequence[Scored]],
        objective: Objective,
        passing: Passing = pass_by,
        before: Before = unwatched,
    ) -> Told:
        """`learn` of batches that are made tensors when their turn comes."""
        own = (self.pad_id, self.device, self.teacher_heads)
        made = collated(batches, *own, asks_teacher=self.spec.asks_teacher_scores, version=self.step)
        return self.learn(made, objective, passing, before)

    def learn(
        self,
        batches: Iterable[MicroBatch],
        objective: Objective,
        passing: Passing = pass_by,
        before: Before = unwatched,
    ) -> Told:
        """One optimiser step on the mean loss over all learned tokens of the batches.

        The gradient of the sum is divided by the count at the end, so the cut into batches does not matter.
        """
        try:
            return self._stepped(batches, objective, passing, before)
        finally:
            self.optimizer.zero_grad()  # also of a step that was given up halfway

    def _stepped(self, batches: Iterable[MicroBatch], objective: Objective, passing: Passing, before: Before) -> Told:
        self.model.train()
        torch.manual_seed(self.spec.seed + self.step)  # dropout: a resumed step draws what the lost one drew
        parts: Parts = {}
        for batch in batches:
            with self._precision():
                total, metrics = loss(self._rows(batch, objective), objective, workspace=self._workspace)
            total.backward()
            parts.setdefault(batch.marked_by, []).append(metrics)
        self._settle()
        parts = self._of_all(parts)
        passing(CrashPoint.AFTER_BACKWARD)
        learned: Told = dict(values(merge(chain.from_iterable(parts.values()))))
        count = learned.pop("tokens", None)
        learned |= {"learned_tokens": count, "lr": self.optimizer.set_lr(self.step)}
        before(int(count or 0))
        with self.moving:
            learned["grad_norm"] = self.optimizer.apply(count, self.step) if count else None
            passing(CrashPoint.AFTER_OPTIMIZER_STEP)
            self.step += 1
        return learned if len(all_names(self.spec.teachers)) < 2 else learned | _by_teacher(parts)

    def _settle(self) -> None:
        """The gradients of a step are in, before they are divided."""

    def _of_all(self, parts: Parts) -> Parts:
        """What all processes measured of a step, by teacher."""
        return parts

    def write_moments(self, folder: Path) -> None:
        moments.write(self.optimizer, folder)

    def read_moments(self, folder: Path) -> None:
        moments.read(self.optimizer, folder)

    @torch.no_grad()
    def measure(self, batches: Iterable[MicroBatch], objective: Objective) -> dict[str, float]:
        """The metrics that `learn` would report, of the student as it is, without learning."""
        self.model.eval()
        parts: list[dict[str, Measured]] = []
        for batch in batches:
            with self._precision():
                parts.append(loss(self._rows(batch, objective), objective)[1])
        return values(merge(parts))

    @torch.no_grad()
    def inspect(self, batch: MicroBatch, objective: Objective, k: int) -> Inspected:
        """What the student as it is, without dropout, and the teacher hold of each row; k: see `inspected`."""
        self.model.eval()
        with self._precision():
            return inspected(self._rows(batch, objective), objective, k)

    def _rows(self, batch: MicroBatch, objective: Objective) -> TokenBatch:
        """The student's hidden states at the rows to learn from, beside what the teacher said of them."""
        ids, attention, predictor_R = batch.input_ids_BT, batch.attention_mask_BT, batch.predictor_R
        reference_RH = None
        if objective.needs_reference:
            with torch.no_grad(), self._as_reference() as model:
                reference_RH = hidden_states(model, ids, attention).flatten(0, 1)[predictor_R]
        return TokenBatch(
            hidden_RH=hidden_states(self.model, ids, attention).flatten(0, 1)[predictor_R],
            head=OutputHead(self.head.weight, self.head.bias, self.head.scale or 1.0, self.head.softcap),
            token_ids_R=batch.token_ids_R,
            mask_R=batch.mask_R,
            rollout_R=batch.rollout_R,
            position_R=batch.position_R,
            behaviour_logprob_R=batch.behaviour_logprob_R,
            lag_R=batch.lag_R,
            outcome_R=batch.outcome_R,
            teacher=batch.teacher,
            vocabulary_size=self._shared_vocabulary(batch.teacher),
            reference_hidden_RH=reference_RH,
            reference_head=None if reference_RH is None else self._reference_head.logits,
        )

    @property
    def _reference_head(self) -> Head:
        return self.head if self.reference is None else self.reference.head

    def _shared_vocabulary(self, teacher: TeacherSignals | None) -> int | None:
        """The number of real tokens where the heads are padded to different sizes; None where they agree."""
        sizes = {len(self.head.weight), len(self._reference_head.weight)}
        if teacher is not None and teacher.head is not None:
            sizes.add(len(teacher.head.weight_VH))
        return len(self.tokenizer) if len(sizes) > 1 else None

    @contextmanager
    def _as_reference(self) -> Iterator[Any]:
        """The reference's model."""
        if self.reference is not None:
            yield self.reference.model
        else:
            with self.model.disable_adapter():
                yield self.model


def _by_teacher(parts: Mapping[str | None, Iterable[Mapping[str, Measured]]]) -> Told:
    """What of the metrics is told of each teacher's rollouts alone."""
    told: dict[str, float | None] = {}
    for teacher, own in parts.items():
        if teacher is None:
            continue
        shown = values(merge(own))
        told |= {f"learned_tokens/{teacher}": shown["tokens"]}
        told |= {f"{name}/{teacher}": shown[name] for name in ("loss", "reverse_kl") if name in shown}
    return told
