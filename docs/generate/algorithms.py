"""docs/algorithms.md: every named method from the table, how a spec composes them, and what was decided where sources
contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from docs.generate.decided import DECIDED
from docs.generate.markdown import code, table

from tutelage_client.methods import METHODS, Method, as_toml

INTRO = """# Methods

On-policy distillation (OPD) has many names and few parts. This page has every method that the project knows by name,
from the survey [arXiv:2604.00626](https://arxiv.org/abs/2604.00626) and what it surveys, and says which of them a run
can be today. `tutelage methods ls` and `tutelage methods show NAME` have the same.

## How a method is composed

    minimise over p   E_{y ~ source} [ sum over tokens  weight * D(target, p | s_t) ]

    rollout.source       whose states               student | teacher_mixed | mix | paired | adaptive | teacher |
                                                    data | pushed
          |
    objective            how the gap is measured     an exact divergence | a policy gradient | cross-entropy | a sum
      .divergence        which gap                   forward_kl .. reverse_kl, f-divergences, adaptive ones
      .support           over which tokens           full | teacher_top_k | student_top_k | union_top_k | sampled
      .target            to what                     the teacher | a mixture with the student | beyond the teacher
          |
    stabilizers          what holds it               clips on q/p and p/mu, masks, the pull to the reference

Symbols: student p, teacher q, policy that wrote the text mu, reference ref, state s_t = (x, y_1 .. y_{t-1}),
R_t = log q(y_t) - log p(y_t), u = q/p at one token, sg stops the gradient, ^ is renormalised on the support, z a logit.
Papers use lambda, alpha and beta for different things; each formula below keeps its paper's.

A preset puts a method's composition into a spec:

```toml
[objective]
kind = "preset"
name = "revisiting-opd"
support = { k = 16 }
```

Numbers, and keys that the composition leaves open, are yours. A word that it fixes makes it this method; another one
there is refused. The run is stored with the composition in place of the name.
"""
TABLE = """## All methods

*on-policy*: **strict**, every update is on samples of the current student; **partial**, some are, or they age;
**adjacent**, none as published, or none are known to be. *needs*: what the teacher returns: `text`, the
log-probability of the `sampled` token, of `candidates`, its `top_k`, its `entropy`, the `full` distribution, its
`hidden` states.
"""
DENSE_RL = """## OPD is dense KL-constrained RL

Take the log-ratio of teacher and reference as a reward, scaled by lambda, under a KL penalty to the reference
([arXiv:2602.12125](https://arxiv.org/abs/2602.12125)):

    maximise  E_{y ~ p} [ sum_t lambda log(q/ref)(y_t) ] - KL(p || ref)
            = E_{y ~ p} [ sum_t lambda log q + (1 - lambda) log ref - log p ]

At lambda = 1 the reference cancels, and what is left is -KL(p || q): OPD. By the chain rule of KL it splits over
tokens, KL(p || q) = E_{y ~ p} [ sum_t KL(p || q)(s_t) ], so the reward is dense: one for each token, known as it is
written.

The gradient is E_{y ~ p} [ sum_t A_t grad log p(y_t) ], and the choice of A_t is one of credit:

    A_t = sum_{t' >= t} gamma^(t'-t) r_t'      r_t = (log q - log p) + (lambda - 1)(log q - log ref)

gamma = 1 is the gradient of -KL(p || q) of whole texts, at lambda = 1. gamma = 0 leaves out what a token does to
later states; then A_t = r_t, and at lambda = 1 the expectation is the gradient of -sum_t KL(p || q)(s_t) at fixed
states. That is what this project builds: exact with `divergence = "reverse_kl"`, sampled with `policy_gradient`. The
variance of a token's term does not grow with the length.

| in RL | in OPD |
|---|---|
| policy, behaviour policy | p, mu |
| state, action | s_t, y_t |
| reward r(y) with KL coefficient beta to ref | teacher q = ref exp(r / beta) / Z; so r = beta log(q/ref) + const |
| beta | 1 / lambda, for the reward log(q/ref) |
| optimum ref exp(r / beta) / Z | q^lambda ref^(1-lambda) / Z |
| critic, reward model | none: q is both |
| discount | gamma; 0 here |

**Conversion.** `policy_gradient` with `target = { kind = "extrapolation", scale = lambda }` has exactly r_t as its
advantage; reverse KL with that target is its expectation. For lambda in (0, 1] there is a second way: reverse KL with
`reference_kl` of `coef` c minimises

    KL(p || q) + c KL(p || ref) = (1 + c) KL(p || q^lambda ref^(1-lambda) / Z) + const,    lambda = 1 / (1 + c)

so `coef` = 1/lambda - 1 gives the same optimum, with a gradient 1 + c times as long. At lambda = 1 there is no
`reference_kl`, and ref plays no part. Above 1 the student goes beyond the teacher, as in `exopd`. With gamma = 0 the
target is normalised in each state; away from lambda 0 and 1 it differs from the optimum over whole texts, whose Z is
one for the text.
"""
METHODS_INTRO = """## One by one

The place is that of the survey's version 2 and later, by objective (4), source of the signal (5), stabilisation and
cost (6); where its tree does not name a method, it is *not placed*. The place in version 1 (feedback, access, grain)
and the on-policy tag are read off each method's definition here; where the sampling was not seen, the more careful
tag stands. *Rests on*: **primary**, the paper or its code was read; **second hand**, summaries and notes of others;
**unchecked**, background knowledge. What no source gives is left out.
"""


def algorithms_page() -> str:
    rows = [
        [f"[`{each.name}`](#{each.name})", each.title, each.status, each.on_policy, ", ".join(each.needs), each.section]
        for each in METHODS
    ]
    head = ("name", "method", "status", "on-policy", "needs", "place")
    decided = [[str(number), *row] for number, row in enumerate(DECIDED, 1)]
    parts = [INTRO, TABLE, table(head, rows), DENSE_RL]
    parts += ["## Where sources contradict each other\n", table(("", "question", "decided", "reason"), decided)]
    parts += [METHODS_INTRO, *(part for each in METHODS for part in _section(each))]
    return "\n".join(parts)


def _section(each: Method) -> Iterator[str]:
    yield f"### {each.name}\n"
    year = f", {each.year}" if each.year else ""
    source = f" · [{'arXiv:' + each.arxiv if each.arxiv else 'source'}]({each.paper})" if each.paper else ""
    yield f"**{each.title}**{year}{source}\n"
    yield f"    {each.formula}\n"
    yield table(("", ""), _facts(each))
    if each.composition is not None:
        yield f"```toml\n{as_toml(each.composition)}```\n"


def _facts(each: Method) -> Iterator[list[str]]:
    fate = each.missing or each.out_of_scope
    yield ["status", f"{each.status}: {fate}" if fate else each.status]
    yield ["on-policy", each.on_policy]
    yield ["needs", ", ".join(map(code, each.needs))]
    tags = (each.feedback, each.access, each.granularity)
    yield ["place", f"{each.section}; in version 1: {', '.join(tag.replace('_', '-') for tag in tags)}"]
    optional = (("defaults", each.defaults), ("failures", each.failures), ("differs", each.differs))
    for name, text in optional:
        if text is not None:
            yield [name, text]
    yield ["rests on", each.evidence.replace("_", " ")]
