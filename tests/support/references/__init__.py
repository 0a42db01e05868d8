"""Every preset's loss a second time: from its paper's formula, in float64, token by token, with nothing of the core.

A reference takes what was recorded of one token and returns its loss, or None where the token is not learned from. The
gradient is autograd's; what a paper holds constant is detached.
"""

from __future__ import annotations

from references.exact import EXACT
from references.rewarded import REWARDED
from references.summed import FIRST_GAPS, LATER, SUMMED
from references.token import PROMPTS, REWARDS, SPECIAL, Reference, computed
from references.written import WRITTEN

REFERENCES: dict[str, Reference] = WRITTEN | EXACT | REWARDED | SUMMED

__all__ = ["FIRST_GAPS", "LATER", "PROMPTS", "REFERENCES", "REWARDS", "SPECIAL", "computed"]
