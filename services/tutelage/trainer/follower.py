"""A copy of the student that writes while the student learns."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch

from tutelage.trainer.student import Student
from tutelage.trainer.writer import Writer


class Follower(Writer):
    """It holds what learns a second time and shares what does not, such as the model below adapters."""

    def __init__(self, student: Student) -> None:
        shared: dict[int, Any] = {id(p): p for p in student.model.parameters() if not p.requires_grad}
        model = copy.deepcopy(student.model, shared).eval().requires_grad_(False)
        head = student.head
        own_head = replace(head, weight=_copied(head.weight, shared), bias=_copied(head.bias, shared))
        super().__init__(model, own_head, student.tokenizer, student.spec)
        own = dict(model.named_parameters())
        self._student = student
        self._pairs = [(own[name], theirs) for name, theirs in student.trained.items()]
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
