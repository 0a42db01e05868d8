"""What was recorded of one token, and the loss and gradient over all of them by a formula for one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SPECIAL = frozenset({0, 1})
# Of the four recorded rollouts: their rewards, and to which of two prompts they answer.
REWARDS = (1.0, 0.0, 0.25, 0.5)
PROMPTS = (0, 0, 1, 1)


@dataclass(frozen=True, eq=False, repr=False)
class Token:
    """One written token and the logits [V] of the three models before it; z is the student's, a leaf.

    following: log q - log p of the rollout's later tokens that are learned from, in order
    learned: all tokens that are learned from, of all rollouts
    """

    z: Tensor
    teacher_z: Tensor
    reference_z: Tensor
    written: int
    behaviour_logprob: float
    following: tuple[float, ...]
    rollout: int
    learned: list[Token]

    @property
    def p(self) -> Tensor:
        return self.z.exp() / self.z.exp().sum()

    @property
    def q(self) -> Tensor:
        return self.teacher_z.exp() / self.teacher_z.exp().sum()

    @property
    def ref(self) -> Tensor:
        return self.reference_z.exp() / self.reference_z.exp().sum()

    @property
    def surprise(self) -> Tensor:
        """-log p(y)."""
        return -self.p[self.written].log()

    @property
    def log_ratio(self) -> float:
        """R = log q(y) - log p(y), held constant."""
        return math.log(float(self.q[self.written])) - math.log(float(self.p.detach()[self.written]))

    @property
    def foreign(self) -> bool:
        """Whether no student wrote it."""
        return math.isnan(self.behaviour_logprob)

    @property
    def ratio(self) -> float:
        """p / mu of the token, held constant."""
        return float(self.p.detach()[self.written]) / math.exp(self.behaviour_logprob)


Reference = Callable[[Token], Tensor | None]


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a / b).log()).sum()


def top(values: Tensor, k: int) -> list[int]:
    found = values.tolist()
    return sorted(range(len(found)), key=lambda v: -found[v])[:k]


def computed(reference: Reference, recorded: dict[str, Tensor]) -> tuple[float, Tensor, int]:
    """Mean loss over the learned tokens, the gradient of their sum [R, V], and how many they are."""
    z_RV = recorded["student_logits"].double().requires_grad_()
    learned: list[Token] = []
    following: dict[int, tuple[float, ...]] = {}
    for row in reversed(range(len(z_RV))):
        rollout = int(recorded["rollout"][row])
        token = Token(
            z_RV[row],
            recorded["teacher_logits"][row].double(),
            recorded["reference_logits"][row].double(),
            int(recorded["token_ids"][row]),
            float(recorded["behaviour_logprob"][row]),
            following.get(rollout, ()),
            rollout,
            learned,
        )
        if recorded["mask"][row]:
            following[rollout] = (token.log_ratio, *token.following)
            learned.append(token)
    losses = [value for token in learned if (value := reference(token)) is not None]
    total = torch.stack(losses).sum()
    return total.item() / len(losses), torch.autograd.grad(total, z_RV)[0], len(losses)
