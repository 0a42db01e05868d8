"""Estimates from the written token, and the loss of what is merely there."""

from __future__ import annotations

import math

from torch import Tensor

from references.token import Reference, Token, kl


def vopd(token: Token) -> Tensor:
    return (token.log_ratio + kl(token.p, token.q).item()) * token.surprise


def opd_plus(token: Token) -> Tensor:
    """w_f = log u - 1 of reverse KL less its constant w_f(1) = -1; log u within 6 nats."""
    return min(6.0, max(-6.0, token.log_ratio)) * token.surprise


def ketchup(token: Token) -> Tensor:
    """The token's own R and those of the next seven."""
    return sum(token.following[:7], token.log_ratio) * token.surprise


def extrapolated(scale: float) -> Reference:
    """(log q - log p) + (lambda - 1)(log q - log ref), weighted by p / mu of at most 5."""

    def reference(token: Token) -> Tensor:
        beyond = math.log(float(token.q[token.written])) - math.log(float(token.ref[token.written]))
        return min(token.ratio, 5.0) * (token.log_ratio + (scale - 1) * beyond) * token.surprise

    return reference


WRITTEN: dict[str, Reference] = {
    "sft": lambda token: token.surprise,
    "seqkd": lambda token: token.surprise,
    "constant-penalty": lambda token: -1.0 * token.surprise,
    "sampled-k1": lambda token: token.log_ratio * token.surprise,
    "ketchup": ketchup,
    "vopd": vopd,
    "opd-plus": opd_plus,
    "g-opd": extrapolated(1.0),
    "exopd": extrapolated(1.25),
    "glm-5": lambda token: token.log_ratio * token.surprise,
}
