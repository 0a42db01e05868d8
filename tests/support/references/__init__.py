"""Every preset's loss a second time: from its paper's formula, in float64, token by token, with nothing of the core.

A reference takes what was recorded of one token and returns its loss, or None where the token is not learned from. The
gradient is autograd's; what a paper holds constant is detached. They stand in the order of the methods' table.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SPECIAL = frozenset({0, 1})
# Of the four recorded rollouts: their rewards, and to which of two prompts they answer.
REWARDS = (1.0, 0.0, 0.25, 0.5)
PROMPTS = (0, 0, 1, 1)


@dataclass(frozen=True)
class Token:
    """One written token and the logits [V] of the three models before it; z is the student's, a leaf.

    following: log q - log p of the rollout's later tokens that are learned from, in order
    """

    z: Tensor
    teacher_z: Tensor
    reference_z: Tensor
    written: int
    behaviour_logprob: float
    following: tuple[float, ...]
    rollout: int

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
    def ratio(self) -> float:
        """p / mu of the token, held constant."""
        return float(self.p.detach()[self.written]) / math.exp(self.behaviour_logprob)


Reference = Callable[[Token], Tensor | None]


def kl(a: Tensor, b: Tensor) -> Tensor:
    return (a * (a / b).log()).sum()


def top(values: Tensor, k: int) -> list[int]:
    found = values.tolist()
    return sorted(range(len(found)), key=lambda v: -found[v])[:k]


def renormalised_reverse_kl(token: Token, kept: list[int]) -> Tensor:
    p, q = token.p[kept], token.q[kept]
    return kl(p / p.sum(), q / q.sum())


def revisiting(token: Token) -> Tensor | None:
    """Teacher's top 32; special tokens are not learned from, save the end of text."""
    return None if token.written in SPECIAL else renormalised_reverse_kl(token, top(token.q, 32))


def gkd(token: Token) -> Tensor:
    mean = 0.5 * token.q + 0.5 * token.p
    return 0.5 * kl(token.q, mean) + 0.5 * kl(token.p, mean)


def concrete_score(token: Token) -> Tensor:
    """Over all pairs of tokens, the squared difference of both models' logit differences, weighted q x q / 2."""
    own = token.z[:, None] - token.z[None, :]
    teachers = token.teacher_z[:, None] - token.teacher_z[None, :]
    return 0.5 * (token.q[:, None] * token.q[None, :] * (own - teachers) ** 2).sum()


def vopd(token: Token) -> Tensor:
    return (token.log_ratio + kl(token.p, token.q).item()) * token.surprise


def opd_plus(token: Token) -> Tensor:
    """w_f = log u - 1 of reverse KL less its constant w_f(1) = -1; log u within 6 nats."""
    return min(6.0, max(-6.0, token.log_ratio)) * token.surprise


def ketchup(token: Token) -> Tensor:
    """The token's own R and those of the next seven."""
    return sum(token.following[:7], token.log_ratio) * token.surprise


def akl(token: Token) -> Tensor:
    mass, head, tail = 0.0, 0.0, 0.0
    for v in top(token.q, len(token.q)):
        gap = abs(float(token.q[v]) - float(token.p.detach()[v]))
        head, tail = (head + gap, tail) if mass < 0.5 else (head, tail + gap)
        mass += float(token.q[v])
    return (head * kl(token.q, token.p) + tail * kl(token.p, token.q)) / (head + tail)


def todi(token: Token) -> Tensor:
    forward, reverse = token.q * (token.q / token.p).log(), token.p * (token.p / token.q).log()
    a = (1 / (1 + token.p / token.q)).detach()
    return (a * forward + (1 - a) * reverse).sum()


def amid(token: Token) -> Tensor:
    """KL(q || r) through r, whose fourth root is the mean of those of p and q (alpha 0.5, lambda 0.5), normalised."""
    mixed = (0.5 * token.q**0.25 + 0.5 * token.p**0.25) ** 4
    return kl(token.q, mixed / mixed.sum())


def taid(token: Token) -> Tensor:
    """At the first step, t = 0.4: KL of softmax(0.6 z_p + 0.4 z_q), held constant, to p."""
    between = (0.6 * token.z.detach() + 0.4 * token.teacher_z).exp()
    return kl(between / between.sum(), token.p)


def veto(token: Token) -> Tensor:
    bridge = (token.q * token.p.detach()).sqrt()
    return kl(token.p, bridge / bridge.sum())


def extrapolated(scale: float) -> Reference:
    """(log q - log p) + (lambda - 1)(log q - log ref), weighted by p / mu of at most 5."""

    def reference(token: Token) -> Tensor:
        beyond = math.log(float(token.q[token.written])) - math.log(float(token.ref[token.written]))
        return min(token.ratio, 5.0) * (token.log_ratio + (scale - 1) * beyond) * token.surprise

    return reference


def group(rollout: int) -> list[float]:
    """The rewards of all answers to the prompt of this one."""
    return [reward for reward, prompt in zip(REWARDS, PROMPTS, strict=True) if prompt == PROMPTS[rollout]]


def grpo(rollout: int) -> float:
    return (REWARDS[rollout] - statistics.mean(group(rollout))) / statistics.stdev(group(rollout))


def dr_grpo(rollout: int) -> float:
    return REWARDS[rollout] - statistics.mean(group(rollout))


def rloo(rollout: int) -> float:
    """Against the mean of the others; here there is one other."""
    own = REWARDS[rollout]
    return own - (sum(group(rollout)) - own) / (len(group(rollout)) - 1)


def reinforce_plus_plus(rollout: int) -> float:
    return (REWARDS[rollout] - statistics.mean(REWARDS)) / statistics.stdev(REWARDS)


def ppo(token: Token, advantage: float, old: float) -> Tensor:
    """-min(rho A, clip(rho, 0.8, 1.2) A) with rho = p / exp(old)."""
    ratio = token.p[token.written] / math.exp(old)
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)


def rewarded(advantage: Callable[[int], float], anchor: float = 0.0) -> Reference:
    """PPO's surrogate, and so much of KL(p || ref)."""
    return lambda token: ppo(token, advantage(token.rollout), token.behaviour_logprob) + anchor * kl(token.p, token.ref)


def kdrl(token: Token) -> Tensor:
    """J_GRPO - beta k2 at beta 0.005, over beta."""
    k2 = 0.5 * (math.log(float(token.q[token.written])) + token.surprise) ** 2
    return k2 + ppo(token, grpo(token.rollout), token.behaviour_logprob) / 0.005


def rlad(token: Token) -> Tensor:
    """GRPO with sqrt(p_old q) below p; q at most 6 nats from p."""
    teacher = min(6.0, max(-6.0, token.log_ratio)) - token.surprise.item()
    return ppo(token, grpo(token.rollout), 0.5 * token.behaviour_logprob + 0.5 * teacher)


REFERENCES: dict[str, Reference] = {
    "sft": lambda token: token.surprise,
    "seqkd": lambda token: token.surprise,
    "token-kd": lambda token: kl(token.q, token.p),
    "constant-penalty": lambda token: -1.0 * token.surprise,
    "gkd": gkd,
    "full-rkl": lambda token: kl(token.p, token.q),
    "revisiting-opd": revisiting,
    "rethinking-opd": lambda token: renormalised_reverse_kl(token, top(token.p, 16)),
    "concrete-score": concrete_score,
    "distillspec": lambda token: kl(token.p, token.q),
    "distillm-skl": lambda token: kl(token.q, 0.1 * token.q + 0.9 * token.p),
    "distillm-srkl": lambda token: kl(token.p, 0.9 * token.q + 0.1 * token.p),
    "sampled-k1": lambda token: token.log_ratio * token.surprise,
    "ketchup": ketchup,
    "vopd": vopd,
    "opd-plus": opd_plus,
    "akl": akl,
    "todi": todi,
    "amid": amid,
    "taid": taid,
    "veto": veto,
    "g-opd": extrapolated(1.0),
    "exopd": extrapolated(1.25),
    "grpo": rewarded(grpo),
    "dr-grpo": rewarded(dr_grpo),
    "rloo": rewarded(rloo),
    "reinforce-plus-plus": rewarded(reinforce_plus_plus),
    "kdrl": kdrl,
    "rlad": rlad,
    "ovd": rewarded(grpo, anchor=0.01),
    "ropd": rewarded(grpo, anchor=0.01),
    "glm-5": lambda token: token.log_ratio * token.surprise,
}


def computed(reference: Reference, recorded: dict[str, Tensor]) -> tuple[float, Tensor, int]:
    """Mean loss over the learned tokens, the gradient of their sum [R, V], and how many they are."""
    z_RV = recorded["student_logits"].double().requires_grad_()
    losses: list[Tensor] = []
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
        )
        if recorded["mask"][row]:
            following[rollout] = (token.log_ratio, *token.following)
            if (value := reference(token)) is not None:
                losses.append(value)
    total = torch.stack(losses).sum()
    return total.item() / len(losses), torch.autograd.grad(total, z_RV)[0], len(losses)
