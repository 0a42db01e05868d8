"""The student a second time, to write while it learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from tutelage.trainer.student import Student
from tutelage.trainer.writer import Writer


class Follower(Writer):
    """It holds what learns a second time and shares what does not, such as the model below adapters.

    sharing: it has no weights of its own, only modules, since dropout and adapters are switched for all that use one;
        for text of the newest weights alone, which stay as they are until a step's last text is learned from
    """

    def __init__(self, student: Student, *, sharing: bool = False) -> None:
        kept = [p for p in student.model.parameters() if sharing or not p.requires_grad]
        shared: dict[int, Any] = {id(p): p for p in kept}
        model = copy.deepcopy(student.model, shared).eval()
        head = student.head
        own_head = replace(head, weight=_copied(head.weight, shared), bias=_copied(head.bias, shared))
        super().__init__(model, own_head, student.tokenizer, student.spec)
        own = {name: p for name, p in model.named_parameters() if id(p) not in shared}
        self._student = student
        self._pairs = [(own[name].requires_grad_(False), p) for name, p in student.trained.items() if name in own]
        self.step = student.step

    @torch.no_grad()
    def follow(self) -> None:
        """Take up the student's weights and version, between two optimiser steps, while nothing is written."""
        with self._student.moving:
            for mine, theirs in self._pairs:
                mine.copy_(theirs)
            self.step = self._student.step


def _copied(tensor: Any, copies: dict[int, Any]) -> Any:
    """What `deepcopy` put in its place."""
    return copies.get(id(tensor), tensor)
