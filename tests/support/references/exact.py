"""Divergences over whole distributions or sets of tokens."""

from __future__ import annotations

from torch import Tensor

from references.token import SPECIAL, Reference, Token, kl, top


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


EXACT: dict[str, Reference] = {
    "token-kd": lambda token: kl(token.q, token.p),
    "gkd": gkd,
    "f-distill": gkd,
    "full-rkl": lambda token: kl(token.p, token.q),
    "revisiting-opd": revisiting,
    "rethinking-opd": lambda token: renormalised_reverse_kl(token, top(token.p, 16)),
    "concrete-score": concrete_score,
    "distillspec": lambda token: kl(token.p, token.q),
    "distillm": lambda token: kl(token.q, 0.1 * token.q + 0.9 * token.p),
    "distillm-skl": lambda token: kl(token.q, 0.1 * token.q + 0.9 * token.p),
    "distillm-srkl": lambda token: kl(token.p, 0.9 * token.q + 0.1 * token.p),
    "akl": akl,
    "todi": todi,
    "amid": amid,
    "taid": taid,
    "veto": veto,
}
