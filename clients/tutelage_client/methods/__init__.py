"""The named methods of on-policy distillation and their neighbours, as data: `methods()`.

Facts come from the survey arXiv:2604.00626 and what it surveys. A method is `built` where a spec of today is it.
"""

from __future__ import annotations

import difflib

from tutelage_client.errors import InvalidInput
from tutelage_client.methods.adaptive import ADAPTIVE
from tutelage_client.methods.baselines import BASELINES
from tutelage_client.methods.black_box import BLACK_BOX
from tutelage_client.methods.credit import CREDIT
from tutelage_client.methods.dynamics import DYNAMICS
from tutelage_client.methods.fixed import FIXED
from tutelage_client.methods.method import Method
from tutelage_client.methods.reinforced import REINFORCED
from tutelage_client.methods.self_distillation import SELF_DISTILLATION
from tutelage_client.methods.skewed import SKEWED
from tutelage_client.methods.systems import SYSTEMS
from tutelage_client.methods.tokenizers import TOKENIZERS
from tutelage_client.methods.toml import as_toml
from tutelage_client.methods.weighting import WEIGHTING

METHODS: tuple[Method, ...] = (
    *BASELINES,
    *FIXED,
    *SKEWED,
    *CREDIT,
    *ADAPTIVE,
    *REINFORCED,
    *TOKENIZERS,
    *BLACK_BOX,
    *SELF_DISTILLATION,
    *WEIGHTING,
    *DYNAMICS,
    *SYSTEMS,
)


def method(name: object) -> Method:
    """The method of this name.

    Raises:
        InvalidInput: there is none; the sentence names the nearest, if one is near.
    """
    known = {each.name: each for each in METHODS}
    if isinstance(name, str) and name in known:
        return known[name]
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`tutelage methods ls` lists them"
    raise InvalidInput(f"there is no method {name!r}; {hint}", "name")


__all__ = ["METHODS", "Method", "as_toml", "method"]
